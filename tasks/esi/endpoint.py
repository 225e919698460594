"""Paginated endpoints: where their pages are, and what their responses say."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Self, TypeAlias

import msgspec

Params: TypeAlias = Mapping[str, str | list[str]]  # of a query; a list is a parameter that occurs several times


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
    api: str = "ESI"  # in messages
    is_esi: bool = True  # statuses mean what they do at ESI: see `find_class`
    requests_per_second: float = float("inf")  # at most
    most_ahead: timedelta = timedelta(minutes=15)  # later dates are wrong: clocks differ a bit

    def page(self, number: int) -> Self:
        """Return the endpoint of one page, named `page 3 of region 10000002`; itself if it has no pages."""
        if not self.page_parameter:
            return self
        params = {**self.params, self.page_parameter: str(number)}
        return msgspec.structs.replace(self, name=f"page {number} of {self.name}", params=params)
