"""The image and the compose file, checked without Docker."""

import json
import os
import re
import shutil
import subprocess
import sys
from fnmatch import fnmatch
from importlib import import_module
from pathlib import Path
from typing import Any

import compose_spec
import pytest

from deployments.local.environment import CHECKOUT, prefect_environment
from tests.support.deployment_files import (
    COMPOSE,
    DEVELOPMENT,
    DOCKER,
    IMAGE_TAG,
    LOCK,
    LOCKED,
    PROJECT,
    RUN_LOCK,
    SERVICES,
    find_secrets,
    read_lock,
)

DOCKERFILE = (DOCKER / "Dockerfile").read_text()
SERVERS = {name: service for name, service in SERVICES.items() if "postgres_password" in service.get("secrets", [])}
# Names from Prefect's docs, and the settings that they set.
ALIASES = {
    "PREFECT_MESSAGING_BROKER": "PREFECT_SERVER_EVENTS_MESSAGING_BROKER",
    "PREFECT_MESSAGING_CACHE": "PREFECT_SERVER_EVENTS_MESSAGING_CACHE",
    "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": "PREFECT_SERVER_API_CORS_ALLOWED_ORIGINS",
}
SETTINGS = """
import json, os
from prefect.settings import get_current_settings
from prefect_redis.cleanup_queue import RedisWorkerCleanupQueueSettings
from prefect_redis.client import RedisMessagingSettings
settings = get_current_settings()
print(json.dumps({
    "set": sorted(settings.to_environment_variables(exclude_unset=True)),
    "url": settings.server.database.connection_url and settings.server.database.connection_url.get_secret_value(),
    "redis": [RedisMessagingSettings().host, RedisWorkerCleanupQueueSettings().host],
}))
"""


def check_compose(compose: dict[str, Any]) -> None:
    """Check a compose file against the Compose Specification, and that everything its services refer to exists."""
    compose_spec.PyCompose.from_json(json.dumps(compose)).validate()


def test_compose_file_is_valid() -> None:
    """The file is valid; the same check refuses an unknown key and a missing secret."""
    check_compose(COMPOSE)
    for broken in ({"depnds_on": ["api"]}, {"secrets": ["missing"]}):
        with pytest.raises(ValueError, match="depnds_on|missing"):
            check_compose(COMPOSE | {"services": {"api": SERVICES["api"] | broken}})


def test_only_this_machine_can_connect() -> None:
    """One port is published, on 127.0.0.1; database and Redis are on an internal network."""
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {"proxy": ["127.0.0.1:4200:4200"]}
    assert COMPOSE["networks"]["data"] == {"internal": True}
    assert SERVICES["postgres"]["networks"] == SERVICES["redis"]["networks"] == ["data"]
    assert SERVICES["worker"]["networks"] == SERVICES["proxy"]["networks"] == ["api"]


def test_images_are_pinned() -> None:
    """Image tags have at least two version numbers; ours has Prefect's version and the project's."""
    images = {service["image"] for service in SERVICES.values()} | set(
        re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
    )
    assert all(re.fullmatch(r"[a-z-]+:\d+\.\d+[\w.-]*", image) for image in images), images
    assert f"market-data:{IMAGE_TAG}" in images
    assert f"tag is Prefect's version and the project's, such as {IMAGE_TAG}" in DOCKERFILE


def test_no_secret_is_in_a_file() -> None:
    """Passwords come from files that are neither in git nor in the image."""
    assert not find_secrets(COMPOSE)
    assert find_secrets({"environment": {"POSTGRES_PASSWORD": "prefect"}})
    for secret in COMPOSE["secrets"].values():
        name = f"deployments/docker/{secret['file']}"
        assert not subprocess.run(["git", "check-ignore", "-q", name], cwd=CHECKOUT, check=False).returncode, name
        assert not is_sent(name)


def is_sent(name: str) -> bool:
    """Return whether a file is in Docker's build context, by the last matching line of Dockerfile.dockerignore."""
    sent = True
    for line in (DOCKER / "Dockerfile.dockerignore").read_text().splitlines():
        pattern = line.removeprefix("!").replace("**/", "*")
        if line and not line.startswith("#") and (fnmatch(name, pattern) or fnmatch(name, f"{pattern}/*")):
            sent = line.startswith("!")
    return sent


def test_copied_files_exist() -> None:
    """What the Dockerfile copies exists and is in the build context; tests, history and environments are not."""
    copied = [
        name for line in re.findall(r"^COPY (?!--from)(.*)", DOCKERFILE, re.MULTILINE) for name in line.split()[:-1]
    ]
    names = [name for name in copied if not name.startswith("--")]
    assert {"requirements-run.lock", "prefect.yaml", "flows", "tasks", "deployments"} <= set(names)
    for name in names:
        assert Path(CHECKOUT, name).exists(), name
        assert is_sent(name), name
    for name in (".git/config", ".venv/bin/python", "tests/conftest.py", "deployments/docker/.env"):
        assert not is_sent(name), name


def test_packages_come_before_the_code() -> None:
    """The packages' layer depends on their lock alone, and the image does not run as root."""
    first, last = DOCKERFILE.rsplit("\nFROM ", 1)
    assert re.findall(r"^COPY (.*)", first, re.MULTILINE) == ["requirements-run.lock ./"]
    assert "--no-deps --require-hashes -r requirements-run.lock" in first
    assert re.findall(r"^USER (.*)", last, re.MULTILINE) == ["1001:1001"]
    assert "ENTRYPOINT" not in last


def load_settings(environ: dict[str, str], tmp_path: Path) -> dict[str, Any]:
    """Return Prefect's settings in a service's environment, after the entrypoint has read the secrets."""
    secret = tmp_path / "secret"
    secret.write_text("p@ss/w:rd%1\n")
    environ = {name: str(secret) if name.endswith("_FILE") else value for name, value in environ.items()}
    done = subprocess.run(
        [DOCKER / "entrypoint.sh", sys.executable, "-c", SETTINGS],
        env={"PATH": os.environ["PATH"], "PREFECT_HOME": str(tmp_path), "HOME": str(tmp_path)} | environ,
        capture_output=True,
        text=True,
        check=True,
    )
    loaded: dict[str, Any] = json.loads(done.stdout)
    return loaded


def test_prefect_knows_all_settings(tmp_path: Path) -> None:
    """Prefect reads each variable of the servers; a password may have any characters."""
    environ: dict[str, str] = SERVICES["api"]["environment"]
    loaded = load_settings(environ, tmp_path)
    own = {name for name in environ if not name.startswith("PREFECT_REDIS_") and not name.endswith("_FILE")}
    assert {ALIASES.get(name, name) for name in own} <= set(loaded["set"])
    assert loaded["url"] == "postgresql+asyncpg://prefect:p%40ss%2Fw%3Ard%251@postgres:5432/prefect"
    assert loaded["redis"] == ["redis", "redis"]
    for module in {value for value in environ.values() if value.startswith("prefect_redis.")}:
        import_module(module)


def test_missing_secret_ends_a_service() -> None:
    """A missing secret is an error at once, not an empty password."""
    environ = {"PATH": os.environ["PATH"], "PREFECT_SERVER_DATABASE_PASSWORD_FILE": "/nowhere/password"}
    done = subprocess.run([DOCKER / "entrypoint.sh", "true"], env=environ, capture_output=True, text=True, check=False)
    assert done.returncode
    assert "/nowhere/password" in done.stderr


def test_settings_are_those_of_the_embedded_stack() -> None:
    """Servers, services and workers have the embedded stack's settings, except those for SQLite and files."""
    assert set(SERVERS) == {"postgres", "migrate", "api", "services"}
    environ: dict[str, str] = SERVICES["api"]["environment"]
    assert SERVICES["services"]["environment"] == SERVICES["migrate"]["environment"] == environ
    local = prefect_environment("http://127.0.0.1:4200/api")
    files = {"PREFECT_SERVER_DATABASE_CONNECTION_URL", "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE"}
    wanted = {name: value for name, value in local.items() if name.startswith("PREFECT_SERVER_") and name not in files}
    assert wanted.items() <= environ.items()
    for name in ("PREFECT_FLOWS_HEARTBEAT_FREQUENCY", "PREFECT_RESULTS_PERSIST_BY_DEFAULT"):
        assert SERVICES["worker"]["environment"][name] == local[name]


def test_locks_agree() -> None:
    """Both locks have the same versions and hashes; the one for running has all that it needs, and no more."""
    locked, run_locked = read_lock(LOCK), read_lock(RUN_LOCK)
    assert run_locked.items() < locked.items()
    required = [
        *PROJECT["dependencies"],
        *(name for extra in PROJECT["optional-dependencies"].values() for name in extra),
    ]
    assert {re.split(r"[\[<>=]", name)[0] for name in required} <= run_locked.keys()
    assert locked.keys() >= DEVELOPMENT
    assert not DEVELOPMENT & run_locked.keys()


@pytest.mark.outage
def test_packages_install_as_in_the_image(tmp_path: Path) -> None:
    """The Dockerfile's step installs the lock's packages, no development tools, and refuses a wrong hash."""
    (step,) = re.findall(r"^RUN (python -m venv .*?)\n\nFROM", DOCKERFILE.replace("\\\n", ""), re.DOTALL | re.MULTILINE)
    command = step.replace("python -m", f"{sys.executable} -m").replace("/opt/venv", str(tmp_path / "venv"))
    uncompiled = os.environ | {"PIP_NO_COMPILE": "no"}  # a falsy value turns it on; compiling takes half of the time

    def install(lock: str) -> subprocess.CompletedProcess[str]:
        shutil.rmtree(tmp_path / "venv", ignore_errors=True)
        (tmp_path / "requirements-run.lock").write_text(lock)
        return subprocess.run(
            ["sh", "-c", command], cwd=tmp_path, env=uncompiled, capture_output=True, text=True, check=False
        )

    done = install(RUN_LOCK)
    assert not done.returncode, done.stderr
    complete = [sys.executable, "-m", "pip", "--python", str(tmp_path / "venv"), "check"]
    subprocess.run(complete, check=True, capture_output=True)
    site = next((tmp_path / "venv/lib").glob("python3*/site-packages"))
    found = {path.name.removesuffix(".dist-info").split("-")[0]: path.name for path in site.glob("*.dist-info")}
    names = {name.lower().replace("_", "-").replace(".", "-"): path for name, path in found.items()}
    assert {"prefect", "prefect-redis", "boto3", "pandas", "opentelemetry-sdk"} <= names.keys()
    assert not {*DEVELOPMENT, "pip"} & names.keys()
    locked = {name.replace(".", "-"): version for name, version in LOCKED.items()}
    assert all(f"-{locked[name]}.dist-info" in path for name, path in names.items())
    program = "import flows.market_data, deployments.automations, prefect_redis.messaging, asyncpg"
    environ = os.environ | {"PREFECT_HOME": str(tmp_path / "prefect"), "PYTHONPATH": str(CHECKOUT)}
    subprocess.run([tmp_path / "venv/bin/python", "-c", program], env=environ, check=True)
    pinned = re.search(r"^prefect-redis==.*?(?=^\w)", RUN_LOCK, re.MULTILINE | re.DOTALL)
    assert pinned
    wrong = re.sub(r"sha256:.{8}", "sha256:00000000", pinned[0])
    refused = install(wrong)
    assert refused.returncode
    assert "DO NOT MATCH THE HASHES" in refused.stderr
