"""What the files for Docker, AWS and Kubernetes have in common."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import msgspec
from cfnlint.decode import cfn_yaml  # type: ignore[import-untyped]

from deployments.local.environment import CHECKOUT

LOCK = Path(CHECKOUT, "requirements.lock").read_text()
RUN_LOCK = Path(CHECKOUT, "requirements-run.lock").read_text()
PYPROJECT = tomllib.loads(Path(CHECKOUT, "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
DEVELOPMENT = {re.split(r"[\[<>=]", name)[0] for name in PYPROJECT["dependency-groups"]["dev"]}
LOCKED = dict(re.findall(r"^([a-z0-9][a-z0-9.-]*)==(\S+)", LOCK, re.MULTILINE))
IMAGE_TAG = f"{LOCKED['prefect']}-{PROJECT['version']}"
RETENTION = "PREFECT_SERVER_SERVICES_DB_VACUUM_EVENT_RETENTION_OVERRIDES"
SECRET = re.compile(r"password$|secret_access_key$|api_key$|auth_string$|token$", re.IGNORECASE)


def read_lock(lock: str) -> dict[str, str]:
    """Return a lock's packages by name, each as its lines have it: version and hashes."""
    return {found[1]: found[0] for found in re.finditer(r"^([a-z0-9.-]+)==[^\n]*(\n +--hash.*)+", lock, re.MULTILINE)}


def load(file: Path) -> dict[str, Any]:
    """Read a YAML file."""
    values: dict[str, Any] = msgspec.yaml.decode(file.read_bytes())
    return values


def find_secrets(values: object, path: str = "") -> list[str]:
    """Return the paths of values that are secrets by their names, and stand there in the open."""
    if isinstance(values, list):
        return [found for each in values for found in find_secrets(each, path)]
    if not isinstance(values, dict):
        return [path] if values and SECRET.search(path) else []
    # An environment variable as Kubernetes and ECS write it.
    name, value = values.get("name", values.get("Name")), values.get("value", values.get("Value"))
    if isinstance(name, str) and value is not None:
        return find_secrets(value, f"{path}.{name}")
    return [found for key, each in values.items() for found in find_secrets(each, f"{path}.{key}")]


DOCKER = Path(CHECKOUT, "deployments/docker")
COMPOSE = load(DOCKER / "compose.yaml")
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
TEMPLATE_FILE = Path(CHECKOUT, "deployments/aws/market-data.yaml")
TEMPLATE: dict[str, Any] = json.loads(json.dumps(cfn_yaml.load(str(TEMPLATE_FILE))))
RESOURCES: dict[str, Any] = TEMPLATE["Resources"]
