"""A declared source of a run: what it fetches, and the records that it makes of it."""

import hashlib
import json
from collections.abc import Sequence
from datetime import timedelta

import httpx

from tasks.declared.aggregation import make_book
from tasks.declared.declaration import Records, Source
from tasks.declared.items import Columns, join, make_decoder
from tasks.esi.endpoint import Endpoint
from tasks.orders.records import Book


class DeclaredSource:
    """The items of an endpoint, and the records that a declaration makes of them."""

    join = staticmethod(join)

    def __init__(self, source: Source, records: Records) -> None:
        self.declared = source
        self.records = records
        self.facts = {"source": source.url}  # what a run's summary has of it
        made_with = source.model_dump(mode="json", include={"url", "pages", "items", "fields"})
        made_with["headers"] = digest(json.dumps(source.headers, sort_keys=True))  # readers need not see them
        made_with["records"] = records.model_dump(mode="json")
        self.description = json.dumps(made_with, sort_keys=True, separators=(",", ":"))
        self.form = digest(f"2 {self.description}")  # names the columns that pages are decoded to, and their format
        self.decode = make_decoder(source)
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

    def prepare(self) -> None:
        """Do nothing: what the other methods need is imported."""

    def make_books(self, chunks: list[Columns], _target_ids: Sequence[int]) -> list[Book]:
        """Return the records of all items; the chunks are emptied."""
        return [make_book(chunks, self.declared.fields, self.records)]


def digest(text: str) -> str:
    """Return a short name for a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]
