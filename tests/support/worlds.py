"""The market that a test's flow sees: its time, its regions, and one that answers as planned."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial

from deployments.local.market.market import Generation, Market, Reply, Request
from deployments.local.market.server import answer
from tests.support.esi import EsiMarket
from tests.support.faults.loop import serve_from_thread

VENAL, INSMOTHER, PERIOD_BASIS, DERELIK = 10000015, 10000009, 10000063, 10000001  # 7 pages, 3, an empty one, 20


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        """Return the unix time."""
        return self.now


class Faulty(EsiMarket):
    """A market that gives planned replies to the first requests for a page, and then behaves."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock=clock)
        self.plan: dict[str, list[Reply]] = {}  # replies by page
        self.on_page: dict[str, float] = {}  # seconds by which the clock moves when a page has been asked for

    def give_page(self, request: Request, generation: Generation) -> Reply:
        """Return the planned reply, or the true one."""
        page = request.query.get("page", "HEAD")
        reply = self.plan[page].pop(0) if self.plan.get(page) else super().give_page(request, generation)
        if page in self.on_page:
            assert isinstance(self.clock, Clock)
            self.clock.now += self.on_page.pop(page)
        return reply


@contextmanager
def serve(market: Market) -> Iterator[str]:
    """Serve a market from a thread of this process; yield its address."""
    with closing(market), serve_from_thread(partial(answer, market)) as port:
        yield f"http://127.0.0.1:{port}"
