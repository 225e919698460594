"""Which declarations the flow `paged-api` refuses, before any request, and what it then says."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from flows.command import run_flow
from flows.paged_api import paged_api
from tasks.declared.declaration import check_declaration
from tasks.esi.errors import RefusedError
from tests.support.apis import Endpoint, make_prices, serve_apis

PROGRAM = "python -m flows.paged_api"
FIELDS: dict[str, Any] = {
    "id": "int",
    "buy": {"type": "int", "path": "/buys/unit_price"},
    "name": {"type": "str", "optional": True},
    "whitelisted": "bool",
}


@pytest.fixture(scope="module")
def endpoint() -> Endpoint:
    """Return an API that is never asked."""
    return make_prices(10)


@pytest.fixture(scope="module")
def url(endpoint: Endpoint) -> Iterator[str]:
    """Yield its URL; it has seen no request in the end."""
    with serve_apis(endpoint) as address:
        yield f"{address}{endpoint.path}?page_size=200"
    assert not endpoint.seen


def declare(url: str, **changes: Any) -> dict[str, Any]:
    """Return a declaration, changed: `source` or `records` as a whole, or a member of one."""
    pages = {"first": 0, "count_header": "X-Page-Total"}
    source = {"url": url, "pages": pages, "fields": FIELDS} | changes.get("source", {})
    return {"source": source, "records": {"key": "id"} | changes.get("records", {})}


def say(command: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> str:
    """Run the flow by its command, and return why it was refused."""
    options = [part for name in command for part in (f"--{name}", json.dumps(command[name]))]
    assert run_flow(paged_api, PROGRAM, [*options, "--table-name", "Declared"], check_declaration) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{PROGRAM}: ")
    return line.removeprefix(f"{PROGRAM}: ")


SOURCES: list[tuple[dict[str, Any], str]] = [
    ({"pages": {}}, "--source.pages: give count_header, the response header with the number of pages, or single: true"),
    ({"pages": {"single": True, "count_header": "X-Pages"}}, "--source.pages: give count_header, .*, or single: true"),
    ({"pages": {"count_header": "X Pages"}}, "--source.pages.count_header: 'X Pages' is not a header's name: give"),
    (
        {"pages": {"count_header": "X-Pages", "size": 5}},
        "--source.pages: 'size' is not a key here: give parameter, first",
    ),
    (
        {"pages": {"count_header": "X-Pages", "first": -1}},
        "--source.pages.first: Input should be greater than",
    ),
    ({"colour": "red"}, "--source: 'colour' is not a key here: give url, headers, pages, "),
    ({"url": "http://api.example/all"}, "--source.url: url is .* plain http is for this machine only, use https"),
    ({"url": "ftp://api.example/all"}, "--source.url: .* give an http.s. address"),
    ({"url": "https://me:secret@api.example"}, "--source.url: url has a user name or password in it"),
    ({"url": "https://api.example/all?a=1#b"}, "--source.url: .* give it without a fragment"),
    ({"url": "https://api.example/all?page=1"}, "--source: url has a page's number, page=…: leave it out"),
    ({"headers": {"No name": "1"}}, r"--source.headers.No name.*: 'No name' is not a header's name: give letters"),
    ({"headers": {"": "1"}}, r"--source.headers..*: '' is not a header's name: give letters"),
    ({"headers": {"Authorization": "hush"}}, "--source: headers has Authorization, .* give .* as authorization_block"),
    ({"headers": {"cookie": "hush"}}, "--source: headers has cookie, which Prefect would store in plain text"),
    ({"headers": {"Host": "api.example"}}, "--source: headers has Host, which the client sets itself: leave it out"),
    (
        {"headers": {"X-Name": "Zoë"}},
        "--source: the value of X-Name in headers does not fit a header: give printable ASCII",
    ),
    ({"snapshot_header": "Last Modified"}, "--source.snapshot_header: 'Last Modified' is not a header's name"),
    ({"expires_header": "Expires:"}, "--source.expires_header: 'Expires:' is not a header's name"),
    ({"items": "data"}, "--source.items: 'data' is not a JSON pointer: give such as /data/items"),
    ({"items": '/"'}, "--source.items: .* is not a JSON pointer"),
    ({"fields": {}}, "--source.fields: Dictionary should have at least 1 item"),
    ({"fields": {"id": "integer"}}, "--source.fields.id.type: Input should be 'int', 'number', 'str' or 'bool'"),
    (
        {"fields": {"id": {"type": "int", "of": "/a"}}},
        "--source.fields.id: 'of' is not a key here: give type, path, opt",
    ),
    ({"fields": {"id": {"path": "/a"}}}, "--source.fields.id.type: Field required"),
    ({"fields": {"id": {"type": "int", "path": "a"}}}, "--source.fields.id.path: 'a' is not a JSON pointer"),
    ({"fields": {"pk": "int"}}, "--source.fields.pk.*: 'pk' cannot be an attribute: give another name"),
    ({"fields": {'a"': "int"}}, "--source.fields.a.*: 'a\"' cannot be an attribute: give another name"),
    (
        {"fields": FIELDS | {"again": {"type": "int", "path": "/id"}}},
        "--source: fields has id and again at one path, or one within the other",
    ),
    (
        {"fields": FIELDS | {"buys": "str"}},
        "--source: fields has buy and buys at one path, or one within the other",
    ),
    ({"authorization_block": "My Block"}, "--source.authorization_block: String should match pattern"),
    ({"requests_per_second": 0}, "--source.requests_per_second: Input should be greater than 0"),
    ({"max_fresh_seconds": 0}, "--source.max_fresh_seconds: Input should be greater than 0"),
]
RECORDS: list[tuple[dict[str, Any], str]] = [
    ({"keys": "id"}, "--records: 'keys' is not a key here: give key, where, once_by, values"),
    ({"key": 5}, "--records.key: 5 is refused: give a field's name, or a list of two"),
    ({"key": "ID"}, "records.key: 'ID' is not declared: give one of source.fields, id, buy, name, whitelisted"),
    ({"key": "name"}, "records.key: 'name' is optional: give a field that every item has"),
    ({"key": []}, "records.key is .*: give one field, or two different ones"),
    ({"key": ["id", "id"]}, "records.key is .*: give one field, or two different ones"),
    ({"key": ["id", "buy", "whitelisted"]}, "records.key is .*: give one field, or two different ones"),
    ({"once_by": "order_id"}, "records.once_by: 'order_id' is not declared: give one of source.fields, id"),
    ({"once_by": "name"}, "records.once_by: 'name' is optional: give a field that every item has"),
    ({"where": {"kind": 1}}, "records.where.kind: 'kind' is not declared: give one of source.fields, id"),
    ({"where": {"id": "1"}}, "records.where.id is '1': the field's type is int, give such a value"),
    ({"where": {"id": True}}, "records.where.id is True: the field's type is int, give such a value"),
    ({"where": {"id": 1.0}}, "records.where.id is 1.0: the field's type is int, give such a value"),
    ({"where": {"whitelisted": [True, 0]}}, "records.where.whitelisted is 0: the field's type is bool, give such"),
    ({"where": {"id": {"min": 1}}}, "--records.where.id: .* is refused: give a value, or a list of values"),
    ({"values": {"least": {"min": "price"}}}, "records.values.least: 'price' is not declared: give one of source.f"),
    ({"values": {"all": {"sum": "name"}}}, "records.values.all: sum does not fit 'name', which is str: give a field"),
    ({"values": {"all": {"max": "whitelisted"}}}, "records.values.all: max does not fit 'whitelisted', which is bool"),
    ({"values": {"all": {"mean": "buy"}}}, "--records.values.all: .* is refused: give count, {min: field}, "),
    ({"values": {"all": "sum"}}, "--records.values.all: 'sum' is refused: give count, {min: field}, "),
    ({"values": {"all": {"min": "buy", "max": "buy"}}}, "records.values.all is .*: give one of min, max and sum, such"),
    ({"values": {"all": {}}}, "records.values.all is {}: give one of min, max and sum, such as {min: price}"),
    ({"values": {"sk": "count"}}, "--records.values.sk.*: 'sk' cannot be an attribute: give another name"),
]


@pytest.mark.parametrize(
    ("changes", "message"),
    [*(({"source": each}, why) for each, why in SOURCES), *(({"records": each}, why) for each, why in RECORDS)],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else "",
)
def test_declaration_is_refused(
    url: str, changes: dict[str, Any], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A declaration that cannot be kept is refused before any request, with its line and what to do."""
    assert re.match(message, said := say(declare(url, **changes), capsys)), said
    assert "hush" not in said


@pytest.mark.usefixtures("api", "store_url")
def test_flow_refuses_before_any_request(url: str, table_name: str) -> None:
    """A run that is started in another way refuses the same, and a missing Secret block, before any request."""
    with pytest.raises(ValueError, match="^records.key: 'ID' is not declared: give one of"):
        paged_api(**declare(url, records={"key": "ID"}), table_name=table_name)
    with pytest.raises(RefusedError, match="Secret block 'nobodys': the server has no such block; store the header"):
        paged_api(**declare(url, source={"authorization_block": "nobodys"}), table_name=table_name)


def test_help_has_each_line_of_a_declaration(capsys: pytest.CaptureFixture[str]) -> None:
    """`--help` says what the JSON of each option may have, and what it must."""
    with pytest.raises(SystemExit):
        run_flow(paged_api, PROGRAM, ["--help"])
    output = capsys.readouterr().out
    assert "--source JSON" in output
    for option, model in (("source", "Source"), ("records", "Records")):
        for name in (paged_api.parameters.definitions or {})[model]["properties"]:
            assert re.search(rf"^--{option} {name}: [^\n]+ \((required|default: .*)\)$", output, re.MULTILINE)


def test_option_that_is_no_json_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """An option that is not JSON is refused in one line."""
    with pytest.raises(SystemExit) as ended:
        run_flow(paged_api, PROGRAM, ["--source", "{url: x}", "--records", "{}", "--table-name", "Declared"])
    assert ended.value.code == 2
    assert "argument --source: '{url: x}' is not JSON: Expecting" in capsys.readouterr().err
