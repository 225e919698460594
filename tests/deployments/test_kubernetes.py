"""The values for Prefect's Helm charts, checked without Helm against the names in the charts' own values."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from deployments.local.environment import CHECKOUT
from tests.support.deployment_files import IMAGE_TAG, RETENTION, find_secrets, load

FOLDER = Path(CHECKOUT, "deployments/kubernetes")
PODS = ["resources", "extraEnvVarsSecret", "extraEnvVarsCM", "livenessProbe", "readinessProbe", "replicaCount"]
# From the charts' values.yaml in the repository PrefectHQ/prefect-helm, late 2025.
KNOWN = {
    "server-values.yaml": {
        "": ["global", "server", "backgroundServices", "migrations", "secret", "postgresql", "redis", "service"],
        "global": ["prefect"],
        "global.prefect": ["image", "env"],
        "global.prefect.image": ["repository", "prefectTag", "pullPolicy", "pullSecrets"],
        "server": [*PODS, "env", "uiConfig", "basicAuth", "autoscaling", "loggingLevel", "extraVolumes"],
        "server.uiConfig": ["prefectUiApiUrl", "prefectUiStaticDirectory"],
        "server.livenessProbe": ["enabled", "config"],
        "server.readinessProbe": ["enabled", "config"],
        "server.resources": ["requests", "limits"],
        "server.resources.requests": ["cpu", "memory"],
        "server.resources.limits": ["cpu", "memory"],
        "backgroundServices": ["runAsSeparateDeployment", "messaging", "extraEnvVarsSecret", "resources", "env"],
        "backgroundServices.messaging": ["broker", "cache", "redis"],
        "backgroundServices.messaging.redis": ["host", "port", "db", "username", "password", "ssl"],
        "backgroundServices.resources": ["requests", "limits"],
        "backgroundServices.resources.requests": ["cpu", "memory"],
        "backgroundServices.resources.limits": ["cpu", "memory"],
        "migrations": ["enabled", "command", "entrypoint", "resources", "env", "extraVolumes", "extraVolumeMounts"],
        "migrations.resources": ["requests", "limits"],
        "migrations.resources.requests": ["cpu", "memory"],
        "migrations.resources.limits": ["cpu", "memory"],
        "secret": ["create", "name", "username", "password", "host", "port", "database"],
        "postgresql": ["enabled", "auth", "primary", "image"],
        "redis": ["enabled", "architecture", "image"],
    },
    "worker-values.yaml": {
        "": ["worker", "serviceAccount", "role", "rolebinding"],
        "worker": [*PODS, "image", "config", "apiConfig", "cloudApiConfig", "serverApiConfig", "extraEnvVars"],
        "worker.image": ["repository", "prefectTag", "pullPolicy", "pullSecrets", "debug"],
        "worker.config": ["workPool", "workQueues", "type", "installPolicy", "limit", "name", "queryInterval", "http2"],
        "worker.serverApiConfig": ["apiUrl", "uiUrl"],
        "worker.resources": ["requests", "limits"],
        "worker.resources.requests": ["cpu", "memory"],
        "worker.resources.limits": ["cpu", "memory"],
        "worker.livenessProbe": ["enabled", "config"],
        "role": ["create", "extraPermissions"],
        "rolebinding": ["create"],
    },
}


def find_unknown(values: dict[str, Any], known: dict[str, list[str]], path: str = "") -> list[str]:
    """Return the paths in values that a chart does not know."""
    unknown: list[str] = []
    for name, value in values.items():
        if name not in known[path]:
            unknown.append(f"{path}.{name}")
        elif isinstance(value, dict):
            unknown += find_unknown(value, known, f"{path}.{name}".lstrip("."))
    return unknown


@pytest.mark.parametrize("name", KNOWN)
def test_charts_know_all_values(name: str) -> None:
    """Each name is one of the chart's own; Helm ignores any other silently."""
    values = load(FOLDER / name)
    assert not find_unknown(values, KNOWN[name])
    values["replicas"] = 2
    assert find_unknown(values, KNOWN[name]) == [".replicas"]


def test_image_and_pool_are_the_projects() -> None:
    """Server and worker run the image that Compose builds; the pool is the one that prefect.yaml deploys to."""
    server, worker = load(FOLDER / "server-values.yaml"), load(FOLDER / "worker-values.yaml")["worker"]
    assert server["global"]["prefect"]["image"]["prefectTag"] == worker["image"]["prefectTag"] == IMAGE_TAG
    assert server["global"]["prefect"]["image"]["repository"] == worker["image"]["repository"]
    assert (worker["config"]["workPool"], worker["config"]["type"]) == ("market-data", "process")


def test_servers_have_the_settings_of_compose() -> None:
    """Servers and background services have each of Compose's settings, by value or from a secret."""
    values = load(FOLDER / "server-values.yaml")
    common = {each["name"]: each["value"] for each in values["global"]["prefect"]["env"]}
    server = common | {each["name"]: each["value"] for each in values["server"]["env"]}
    compose = load(Path(CHECKOUT, "deployments/docker/compose.yaml"))["services"]["api"]["environment"]
    # The chart sets the database and the UI's address itself; these come from the secret prefect-redis.
    left = {"PREFECT_SERVER_DOCKET_URL", "PREFECT_REDIS_WORKER_CLEANUP_QUEUE_HOST", "PREFECT_SERVER_UI_API_URL"}
    left |= {name for name in compose if name.startswith("PREFECT_SERVER_DATABASE_")} - common.keys()
    wanted = {name: value for name, value in compose.items() if name not in left}
    assert server == wanted | {"PREFECT_REDIS_MESSAGING_HOST": "redis.example.com"}
    assert msgspec.json.decode(common[RETENTION]) == msgspec.json.decode(compose[RETENTION])
    messaging = values["backgroundServices"]["messaging"]
    assert {messaging["broker"], messaging["cache"]} == {"prefect_redis.messaging"}
    assert values["server"]["extraEnvVarsSecret"] == values["backgroundServices"]["extraEnvVarsSecret"]


@pytest.mark.parametrize("name", KNOWN)
def test_no_secret_is_in_a_value(name: str) -> None:
    """Passwords and keys are references to secrets, never values."""
    assert not find_secrets(load(FOLDER / name))
    assert find_secrets({"env": [{"name": "PREFECT_API_KEY", "value": "pnu_1"}]})
