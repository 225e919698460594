"""Reading tables of several markets, while runs write them."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from mypy_boto3_dynamodb import DynamoDBClient

from tasks.table import read_prices, read_records
from tasks.table.client import Table
from tasks.table.errors import TableError
from tasks.table.read import UnreadableError
from tests.support.esi import EsiMarket
from tests.support.faults.plan import Plan
from tests.support.faults.store import Capacity, serve_faulty_store
from tests.support.markets import REGION, keep
from tests.support.truth import place_truth
from tests.support.worlds import Clock

pytestmark = pytest.mark.usefixtures("served", "store_url", "api")


def test_reader_of_one_market_while_another_is_written(
    dynamodb: DynamoDBClient, clock: Clock, places: list[int], table_name: str
) -> None:
    """A market can be read while another market of the table is being written."""
    keep(table_name, places[2:])
    dynamodb.update_item(
        TableName=table_name,
        Key={"pk": {"S": str(places[2])}, "sk": {"S": "#snapshot"}},
        UpdateExpression="SET #state = :writing, #owner = :owner",
        ExpressionAttributeNames={"#state": "state", "#owner": "owner"},
        ExpressionAttributeValues={":writing": {"S": "writing"}, ":owner": {"S": "host/1/run"}},
    )
    assert read_records(table_name, places[3])[1].state == "complete"
    _prices, snapshots = read_prices(table_name, [34], places[2:])
    assert [snapshots[place].state for place in places[2:]] == ["writing", "complete"]


def test_market_is_read_by_itself(table_name: str, places: list[int]) -> None:
    """A table of many markets is not read without a market's id, and the message says so."""
    keep(table_name, places[2:])
    with pytest.raises(TableError, match="its keys do not match the parameter key"):
        read_records(table_name)


def test_prices_of_some_types_at_some_markets(
    market: EsiMarket, places: list[int], table_name: str, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prices at several markets are one call of up to 100 keys; types without a record are absent."""
    keep(table_name, places)
    expected = {place: place_truth(market, REGION, place) for place in places}
    types = sorted(map(int, expected[places[2]]))[:30]
    capacity = Capacity(1e9)
    with serve_faulty_store(store_url, Plan([]), capacity) as url, monkeypatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL_DYNAMODB", url)
        few, snapshots = read_prices(table_name, [*types[:5], 999_999], places)
        assert capacity.passed["BatchGetItem"] == 1
        many, _snapshots = read_prices(table_name, types, places)
        assert capacity.passed["BatchGetItem"] == 3
    assert {snapshot.market_id for snapshot in snapshots.values()} == set(places)
    for place in places:
        assert {str(each) for each in many[place]} == {str(each) for each in types} & set(expected[place])
        for type_id, record in few[place].items():
            assert {"N": str(record.price)} == expected[place][str(type_id)]["price"]
    with pytest.raises(UnreadableError, match="has no market 60000004 in it"):
        read_prices(table_name, [34], [places[0], 60000004])


def test_unprocessed_keys_are_read_again(places: list[int], table_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unprocessed keys are read again until all are there."""
    keep(table_name, places)
    whole, _snapshots = read_prices(table_name, [34, 35, 36, 37], places)
    call, calls = Table.call, Counter[str]()

    def leave_some(table: Table, operation: str, pace: Any, *args: Any, **arguments: Any) -> Any:
        calls[operation] += 1
        if operation != "batch_get_item" or len(arguments["RequestItems"][table_name]["Keys"]) < 3:
            return call(table, operation, pace, *args, **arguments)
        keys = arguments["RequestItems"][table_name]["Keys"]
        first = {table_name: {"Keys": keys[:3], "ConsistentRead": True}}
        answer = call(table, operation, pace, *args, RequestItems=first)
        return answer | {"UnprocessedKeys": {table_name: {"Keys": keys[3:], "ConsistentRead": True}}}

    monkeypatch.setattr(Table, "call", leave_some)
    assert read_prices(table_name, [34, 35, 36, 37], places)[0] == whole
    assert calls["batch_get_item"] >= 6


def test_index_by_price(dynamodb: DynamoDBClient, market: EsiMarket, places: list[int], table_name: str) -> None:
    """A table with an index on the number `price` accepts records and `#snapshot`."""
    dynamodb.create_table(
        TableName=table_name,
        AttributeDefinitions=[
            {"AttributeName": "pk", "AttributeType": "S"},
            {"AttributeName": "sk", "AttributeType": "S"},
            {"AttributeName": "price", "AttributeType": "N"},
        ],
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
        GlobalSecondaryIndexes=[
            {
                "IndexName": "by-price",
                "KeySchema": [
                    {"AttributeName": "pk", "KeyType": "HASH"},
                    {"AttributeName": "price", "KeyType": "RANGE"},
                ],
                "Projection": {"ProjectionType": "ALL"},
            }
        ],
        BillingMode="PAY_PER_REQUEST",
    )
    keep(table_name, places[2:])
    for place in places[2:]:
        found = list_index(dynamodb, table_name, place)
        assert len(found) == len(place_truth(market, REGION, place))


def list_index(dynamodb: DynamoDBClient, table_name: str, place: int) -> list[str]:
    """Return the item types of a market by price."""
    pages: Iterator[Any] = iter(
        dynamodb.get_paginator("query").paginate(
            TableName=table_name,
            IndexName="by-price",
            KeyConditionExpression="pk = :market",
            ExpressionAttributeValues={":market": {"S": str(place)}},
        )
    )
    return [item["sk"]["S"] for page in pages for item in page["Items"]]
