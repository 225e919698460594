"""The flow `paged-api`: the declarations of the docs page, against stand-ins of their APIs."""

from typing import Any

import pytest
from mypy_boto3_dynamodb import DynamoDBClient

from flows.paged_api import SourceSummary, paged_api
from tests.support.apis import API_CASES, find_key_code, read_declarations, serve_apis
from tests.support.tables import scan

pytestmark = pytest.mark.usefixtures("store_url", "api")


def run(name: str, url: str, table_name: str, **more: Any) -> SourceSummary:
    """Run a declaration of the page against a stand-in."""
    given = read_declarations(url)[name]
    summary: SourceSummary = paged_api(source=given["source"], records=given["records"], table_name=table_name, **more)
    return summary


def test_each_declaration_of_the_page_has_a_case() -> None:
    """Each deployment of the page is run here."""
    assert read_declarations("").keys() == API_CASES.keys()


@pytest.mark.parametrize("name", API_CASES)
def test_declaration_fills_its_table(name: str, table_name: str, dynamodb: DynamoDBClient) -> None:
    """A declaration's table is exact; a second run finds it not modified, or writes nothing; a third what differs."""
    exec(find_key_code(), {})
    make, make_truth = API_CASES[name]
    endpoint = make()
    names_snapshot = endpoint.is_dated or bool(endpoint.version)
    with serve_apis(endpoint) as url:
        summary = run(name, url, table_name)
        items = scan(dynamodb, table_name)
        marker = items.pop("#snapshot")
        assert items == make_truth(endpoint.items)
        assert (summary.items, summary.records, summary.written) == (len(endpoint.items), len(items), len(items))
        assert marker["state"] == {"S": "complete"}
        assert marker["items"] == {"N": str(len(endpoint.items))}
        assert ("NULL" not in marker["snapshot_header"]) == names_snapshot
        assert marker["snapshot"] == {"S": endpoint.version}
        requests = len(endpoint.seen)
        again = run(name, url, table_name)
        assert (again.not_modified, again.written) == (names_snapshot, 0)
        more = 0 if endpoint.is_dated else 1 if names_snapshot else summary.pages + 1
        assert len(endpoint.seen) - requests == more
        endpoint.items = endpoint.items[2:]
        endpoint.modified += 300
        third = run(name, url, table_name, force=True)
        items = scan(dynamodb, table_name)
        del items["#snapshot"]
        assert items == make_truth(endpoint.items)
        assert 0 < third.written + third.deleted <= 3
