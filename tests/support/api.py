"""Prefect's REST API, as far as the stack asks it: its Python client alone takes two seconds to import."""

import re
import time
from typing import Any, Self, TypeVar

import httpx
import msgspec

T = TypeVar("T")
ATTEMPTS = 6
EXCEPTION = re.compile(
    r"^(Flow run encountered an exception|Validation of flow parameters failed with error): *(\w+: )?"
)


class State(msgspec.Struct, frozen=True):
    """The state of a flow run."""

    type: str
    name: str
    message: str | None = None

    @property
    def reason(self) -> str:
        """The message in one line, without what says only that it is one."""
        return " ".join(EXCEPTION.sub("", self.message or self.name).split())


class FlowRun(msgspec.Struct, frozen=True):
    """A flow run."""

    id: str
    state: State


class Schedule(msgspec.Struct, frozen=True):
    """A schedule of a deployment."""

    id: str
    active: bool
    parameters: dict[str, Any] = {}


class Deployment(msgspec.Struct, frozen=True):
    """A deployment."""

    id: str
    schedules: list[Schedule]
    parameters: dict[str, Any] = {}


class Artifact(msgspec.Struct, frozen=True):
    """An artifact of markdown."""

    data: str


class Api:
    """The API of a server on this machine. Use it as a context manager."""

    def __init__(self, url: str) -> None:
        self.url = url
        limits = httpx.Limits(keepalive_expiry=2.0)  # shorter than the server's own 5 s
        self._http = httpx.Client(base_url=url, timeout=30.0, trust_env=False, limits=limits)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def is_up(self) -> bool:
        """Return whether the server answers."""
        try:
            return self._http.get("/health", timeout=1.0).is_success
        except httpx.HTTPError:
            return False

    def create_pool(self, name: str) -> None:
        """Create a work pool of processes, unless it is there."""
        self.send("POST", "/work_pools/", {"name": name, "type": "process"}, passing=httpx.codes.CONFLICT)

    def has_worker(self, pool: str) -> bool:
        """Return whether a worker asks the pool for runs."""
        workers = self._ask("POST", f"/work_pools/{pool}/workers/filter", {}, list[dict[str, Any]])
        return any(worker["status"] == "ONLINE" for worker in workers)

    def find_deployment(self, name: str) -> Deployment:
        """Return a deployment by its whole name, such as `market-data/venal`."""
        return self._ask("GET", f"/deployments/name/{name}", None, Deployment)

    def create_run(self, deployment: str, parameters: dict[str, Any]) -> str:
        """Create a run of a deployment, for a worker to take, and return its id."""
        found = self.find_deployment(deployment)
        body = {"parameters": parameters, "state": {"type": "SCHEDULED"}}
        return self._ask("POST", f"/deployments/{found.id}/create_flow_run", body, FlowRun).id

    def read_state(self, flow_run_id: str) -> State:
        """Return the state of a flow run."""
        return self._ask("GET", f"/flow_runs/{flow_run_id}", None, FlowRun).state

    def read_summary(self, flow_run_id: str) -> str:
        """Return the summary artifact of a flow run, markdown; nothing if it made none."""
        wanted = {"flow_runs": {"id": {"any_": [flow_run_id]}}, "artifacts": {"key": {"like_": "summary-"}}}
        artifacts = self._ask("POST", "/artifacts/filter", wanted, list[Artifact])
        return artifacts[0].data if artifacts else ""

    def _ask(self, method: str, path: str, body: Any, kind: type[T]) -> T:
        return msgspec.json.decode(self.send(method, path, body).content, type=kind)

    def send(self, method: str, path: str, body: Any = None, passing: int = 0) -> httpx.Response:
        """Send a request, and again where the server asks for it by 503: its SQLite was busy."""
        for attempt in range(ATTEMPTS):
            answer = self._http.request(method, path, json=body)
            if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                break
            time.sleep(float(answer.headers.get("Retry-After", 2**attempt / 10)))
        return answer if answer.status_code == passing else answer.raise_for_status()
