"""What runs: market stand-in, store, PostgreSQL, Redis, Prefect's API servers, its services, and workers."""

import os
import shutil
import signal
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from typing import Self, TypeVar

from benchmarks.scale.process_tree import kill_all, stop_tree, tree_seconds
from benchmarks.scale.services import Postgres, Redis, data_folder
from benchmarks.servers import SNAPSHOT_INDEX, Market, wait_for_pages
from deployments.automations import read_automations
from deployments.local.environment import (
    POOL,
    STATE,
    STORE_VENV,
    Options,
    aws_environment,
    base_environment,
    prefect_environment,
    store_environment,
)
from deployments.local.processes import Child, ChildError, adopt_orphans, free_port, stop_orphans
from deployments.local.stack import (
    answers,
    lock_state,
    prefect,
    raise_interrupt,
    rest_of_line,
    server_command,
)
from tests.support.api import Api

T = TypeVar("T")
FOLDER = STATE / "scale"
START_SECONDS = 300.0  # all regions' pages take two minutes to make
API_PROCESSES = 2
RUNS_A_WORKER = 4


class Topology:
    """Starts everything, and stops all of it. Use it as a context manager, from the main thread.

    Args:
        say: is told what begins.
        workers: how many.

    Raises:
        BusyError: another stack of this checkout is running.
    """

    def __init__(self, say: Callable[[str], None], workers: int) -> None:
        self.say = say
        self.workers = [f"worker-{number}" for number in range(1, workers + 1)]
        self.children: dict[str, Child] = {}
        self._starts: Counter[str] = Counter()  # by name
        self._spent: dict[str, float] = defaultdict(float)  # CPU seconds of children that are gone
        self._held = ExitStack()
        self._base = base_environment(os.environ) | {"TMPDIR": str(FOLDER / "tmp")}
        self._store_port, self._api_port = free_port(), free_port()
        self.store_url = f"http://127.0.0.1:{self._store_port}"
        self.api = Api(f"http://127.0.0.1:{self._api_port}/api")

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, raise_interrupt)
        self._held.enter_context(lock_state())  # nor is another stack to take the cores
        shutil.rmtree(FOLDER, ignore_errors=True)
        (FOLDER / "tmp").mkdir(parents=True)
        adopt_orphans()
        self._held.enter_context(self.api)
        folder = self._held.enter_context(data_folder())
        self.postgres, self.redis = Postgres(folder), Redis(folder)
        return self

    def __exit__(self, *_: object) -> None:
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}  # once is enough
        for name in set(self.workers) & set(self.children):
            self.kill(name)  # nobody waits for what its runs are at
        for name in reversed(self.children):
            self.children[name].stop()
            stop_orphans({child.process.pid for child in self.children.values() if child.is_running()})
        self._held.close()
        for number, handler in before.items():
            signal.signal(number, handler)

    def start(self, region_ids: list[int]) -> None:
        """Start all but the workers, and wait until they are ready, deployments and pages included.

        Raises:
            ChildError: one of them ended, or is not ready in time.
            MissingProgramError: PostgreSQL or Redis is not installed.
        """
        market = self._start("market", Market(SNAPSHOT_INDEX).command(region_ids), self._base)
        store = store_environment(self._store_port, FOLDER / "store") | {"PERSIST_STATE": "0"}
        self._start("store", [str(STORE_VENV / "bin" / "ministack")], self._base | store)
        self.start_redis()
        self.postgres.create()
        self._start("postgres", self.postgres.command(), self._base)
        self.wait_for(self.postgres.is_up)
        self.run("migrate", [prefect(), "server", "database", "upgrade", "-y"])
        self.start_api()
        self._start("services", [prefect(), "server", "services", "start"], self.environ)
        self.api.create_pool(POOL)
        self.api.apply_automations(read_automations())
        self.wait_for(lambda: answers(f"{self.store_url}/_ministack/health"))
        self.market_url = self.wait_for(lambda: rest_of_line(market.log, "market stand-in on "))
        self.run("deploy", [prefect(), "--no-prompt", "deploy", "--all"])
        self.say("waiting for all pages to be made")
        for region_id in region_ids:
            wait_for_pages(self.market_url, region_id)

    def start_workers(self) -> None:
        """Start the workers, and wait until all of them ask for runs."""
        for name in self.workers:
            self.start_worker(name)
        online = "SELECT count(*) FROM worker WHERE last_heartbeat_time IS NOT NULL"
        self.wait_for(lambda: int(self.postgres.query(online)[0][0]) >= len(self.workers))

    def start_worker(self, name: str) -> None:
        """Start a worker."""
        command = [prefect(), "worker", "start", "--pool", POOL, "--type", "process", "--name", self.new_name(name)]
        settings = self.environ | {"ESI_URL": self.market_url}
        self._start(name, [*command, "--limit", str(RUNS_A_WORKER)], settings)

    def new_name(self, name: str) -> str:
        """Return the name that Prefect is to know a worker by: one that takes another's place is another one."""
        return f"{name}.{self._starts[name] + 1}"

    def start_redis(self) -> None:
        """Start Redis, and wait for it."""
        self._start("redis", self.redis.command(), self._base)
        self.wait_for(self.redis.is_up)

    def start_api(self) -> None:
        """Start Prefect's API servers, whose access log has a line a request, and wait for them."""
        command = [*server_command(self._api_port), "--no-services", "--workers", str(API_PROCESSES)]
        self._start("api", command, self.environ | {"PREFECT_SERVER_LOGGING_LEVEL": "INFO"})
        self.wait_for(self.api.is_up)

    def kill(self, name: str) -> int:
        """Kill a child with all that it has started, as a machine that dies would; return how many processes.

        Their CPU seconds are kept. It can be started again.
        """
        child = self.children.pop(name)
        pids = stop_tree(child.process.pid)
        self._spent[name] += tree_seconds(child.process.pid)
        kill_all(pids)
        child.process.wait()
        return len(pids)

    @property
    def environ(self) -> dict[str, str]:
        """The environment of Prefect's servers, services, commands and workers, and of flow runs."""
        return (
            self._base
            | prefect_environment(self.api.url, FOLDER / "prefect")
            | self.redis.environment()
            | aws_environment(Options(0, "local", ""), self.store_url, {})
            | {
                "PREFECT_SERVER_DATABASE_CONNECTION_URL": self.postgres.url,
                "PREFECT_SERVER_DATABASE_MIGRATE_ON_START": "false",  # that is a step of its own, before any server
                # On an empty database two API processes would register the same block types at once, and one of them
                # would log forty errors (3.8.8). None is needed here; `prefect block register` does it otherwise.
                "PREFECT_SERVER_REGISTER_BLOCKS_ON_START": "false",
            }
        )

    def used_seconds(self) -> dict[str, float]:
        """Return the CPU seconds so far, by child, of all processes that it has started."""
        used = self._spent.copy()
        for name, child in self.children.items():
            used[name] += tree_seconds(child.process.pid)
        return used

    def run(self, name: str, command: list[str]) -> None:
        """Run a command of Prefect's to its end.

        Raises:
            ChildError: it fails, or takes too long.
        """
        task = self._start(name, command, self.environ, is_task=True)
        self.wait_for(task.has_succeeded)
        del self.children[name]

    def wait_for(self, ready: Callable[[], T], every_seconds: float = 0.1, most_seconds: float = START_SECONDS) -> T:
        """Wait until something is ready, and return what it gave.

        Raises:
            ChildError: a child has ended meanwhile, or it took too long.
        """
        deadline = time.monotonic() + most_seconds
        while not (result := ready()):
            self.check()
            if time.monotonic() > deadline:
                raise ChildError(f"not everything was ready after {most_seconds:.0f} s: see {FOLDER / 'logs'}")
            time.sleep(every_seconds)
        return result

    def check(self) -> None:
        """Raise if a child has ended that nobody has killed.

        Raises:
            ChildError: with the last lines of its log.
        """
        for child in self.children.values():
            child.check()

    def _start(self, name: str, command: list[str], environ: dict[str, str], *, is_task: bool = False) -> Child:
        self._starts[name] += 1
        log = FOLDER / "logs" / f"{name}.{self._starts[name]}.log"  # one that is started again goes on in another
        self.children[name] = Child(name, command, environ, log, is_task=is_task)
        return self.children[name]
