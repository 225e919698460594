"""A declared source of a run: what it fetches, and the records that it makes of it."""

import hashlib
import json
from collections.abc import Sequence
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING

import httpx

from tasks.declared.declaration import Records, Source
from tasks.esi.endpoint import Endpoint
from tasks.imports import load, load_early
from tasks.orders.records import Book

if TYPE_CHECKING:
    from tasks.declared.items import Columns, ItemDecoder

# numpy and pandas take half a second to import, and most runs have nothing to aggregate: see `prepare`.


class DeclaredSource:
    """The items of an endpoint, and the records that a declaration makes of them."""

    def __init__(self, source: Source, records: Records) -> None:
        self.declared = source
        self.records = records
        self.facts = {"source": source.url}  # what a run's summary has of it
        made_with = source.model_dump(mode="json", include={"url", "pages", "items", "fields"})
        made_with["headers"] = digest(json.dumps(source.headers, sort_keys=True))  # readers need not see them
        made_with["records"] = records.model_dump(mode="json")
        self.description = json.dumps(made_with, sort_keys=True, separators=(",", ":"))
        url, pages = httpx.URL(source.url), source.pages
        self.endpoint = Endpoint(
            name=source.url.partition("?")[0],
            noun="the source",
            hint="is url right?",
            path=url.raw_path.partition(b"?")[0].decode(),
            params={name: url.params.get_list(name) for name in url.params},
            page_parameter="" if pages.single else pages.parameter,
            first_page=0 if pages.single else pages.first,
            count_header=pages.count_header or "",
            needs_count=True,
            requests_per_second=source.requests_per_second or float("inf"),
            snapshot_header=source.snapshot_header or "",
            expires_header=source.expires_header or "",
            api=url.host,
            is_esi=False,
            most_ahead=timedelta(seconds=source.max_fresh_seconds),
        )

    @property
    def form(self) -> str:
        """A name for the columns that pages are decoded to."""
        return digest(self.description)

    def prepare(self) -> None:
        """Import what the other methods need, while pages are in flight."""
        load_early("tasks.declared.items", "tasks.declared.aggregation")

    def decode(self, body: bytes, what: str) -> "Columns":
        """Decode a page; see `ItemDecoder.decode`."""
        return self._decoder.decode(body, what)

    def join(self, pages: "list[Columns]") -> "Columns":
        """Return the items of several pages, in order."""
        join = load("tasks.declared.items").join
        return {name: join([page[name] for page in pages]) for name in pages[0]}

    def make_books(self, chunks: "list[Columns]", _target_ids: Sequence[int]) -> list[Book]:
        """Return the records of all items; the chunks are emptied."""
        return [load("tasks.declared.aggregation").make_book(chunks, self.records)]

    @cached_property
    def _decoder(self) -> "ItemDecoder":
        decoder: ItemDecoder = load("tasks.declared.items").ItemDecoder(self.declared)
        return decoder


def digest(text: str) -> str:
    """Return a short name for a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]
