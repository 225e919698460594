"""Paginated endpoints: where their pages are, and what their responses mean."""

from collections.abc import Mapping
from datetime import timedelta
from typing import TypeAlias

import msgspec

Params: TypeAlias = Mapping[str, str | list[str]]  # of a query; a list is a parameter that occurs several times


class Dialect(msgspec.Struct, frozen=True):
    """How an API uses HTTP's statuses where APIs differ; the defaults are ESI's."""

    api: str = "ESI"  # in messages
    past_the_end: frozenset[int] = frozenset({404})  # of a page that does not exist
    overload: frozenset[int] = frozenset()  # with a `Retry-After`, all requests pause
    has_sso: bool = True  # a refused authorised request may succeed with a new access token
    after_redirect: str = "set ESI_URL to ESI's own"  # what to do


ESI = Dialect()


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """A paginated endpoint of an API; the defaults are those of ESI's markets."""

    name: str  # in messages: `region 10000002`
    noun: str = "the region"
    hint: str = ""  # what to ask oneself after a 404
    path: str  # below the API's URL
    params: Params = {}  # of each request
    page_parameter: str = "page"  # empty if all is in one response
    first_page: int = 1
    count_header: str = "X-Pages"  # how many pages there are
    needs_count: bool = False  # on every page, not only on the first response
    snapshot_header: str = "Last-Modified"  # names the snapshot; empty if the API does not
    expires_header: str = "Expires"  # empty if the API has none
    dialect: Dialect = ESI
    requests_per_second: float = float("inf")  # at most
    most_ahead: timedelta = timedelta(minutes=15)  # later dates are wrong: clocks differ a bit

    def params_of(self, page: int) -> Params:
        """Return the query for a page."""
        return {**self.params, **({self.page_parameter: str(page)} if self.page_parameter else {})}

    def name_page(self, page: int) -> str:
        """Return a page's name for messages: `page 3 of region 10000002`."""
        return f"page {page} of {self.name}" if self.page_parameter else self.name
