"""The embedded stack's options, and its environment without the user's settings."""

import os

import pytest

from deployments.local.environment import (
    DEFAULT_REGION,
    Options,
    aws_environment,
    base_environment,
    read_options,
)
from flows.market_data import market_data

USER = {
    "AWS_PROFILE": "production",
    "AWS_SECRET_ACCESS_KEY": "planted",
    "AWS_ENDPOINT_URL": "https://dynamodb.eu-west-1.amazonaws.com",
    "PREFECT_API_URL": "https://api.prefect.cloud/api",
    "PREFECT_API_KEY": "planted",
    "PYTHONPATH": "/elsewhere",
    "HTTP_PROXY": "http://proxy:3128",
    "NO_PROXY": "intranet",
    "HOME": "/home/user",
    "PATH": "/usr/bin",
}


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        pytest.param({}, Options(10000015, "local", ""), id="defaults"),
        pytest.param({"REGION": "10000002"}, Options(10000002, "local", ""), id="region"),
        pytest.param(
            {"REGION": "10000002", "MARKETS": "60003760"}, Options(10000002, "local", "", (60003760,)), id="a market"
        ),
        pytest.param(
            {"MARKETS": "10000002, 60003760"},
            Options(10000002, "local", "", (10000002, 60003760)),
            id="markets, the region among them",
        ),
        pytest.param(
            {"MARKETS": "60008494"}, Options(10000043, "local", "", (60008494,)), id="a hub, whose region is known"
        ),
        pytest.param({"MARKETS": "10000002"}, Options(10000002, "local", ""), id="the region alone"),
        pytest.param(
            {"MARKETS": "10000002 60003760", "MARKET": "60003760"},
            Options(10000002, "local", "", (60003760, 10000002)),
            id="one of them to show",
        ),
        pytest.param(
            {"MARKET": "10000002"}, Options(10000002, "local", "", (10000002,)), id="the region of such a table"
        ),
        pytest.param({"STORE": "local", "REGION": " "}, Options(10000015, "local", ""), id="blank"),
        pytest.param(
            {"ESI_URL": "https://esi.evetech.net", "STORE": "aws"},
            Options(10000015, "aws", "https://esi.evetech.net"),
            id="real market, real account",
        ),
        pytest.param(
            {"STORE": "aws", "AWS_ENDPOINT_URL_DYNAMODB": "http://127.0.0.1:8000"},
            Options(10000015, "aws", ""),
            id="the user's own emulator",
        ),
    ],
)
def test_options_are_read(environ: dict[str, str], expected: Options) -> None:
    """REGION, MARKETS, STORE and ESI_URL set the options; the defaults are Venal and the local store."""
    assert read_options(environ) == expected


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        pytest.param({"REGION": "Jita"}, "REGION is 'Jita': give a region's id", id="name"),
        pytest.param({"REGION": "10999999"}, "REGION is '10999999': give a region's id", id="unknown"),
        pytest.param({"REGION": "5", "ESI_URL": "https://esi.evetech.net"}, "REGION is '5'", id="no region"),
        pytest.param(
            {"MARKETS": "60003760 Jita"}, "MARKETS is '60003760 Jita': give ids of markets in one region", id="no id"
        ),
        pytest.param({"MARKET": "34"}, "MARKET is '34': give ids of markets", id="an item type"),
        pytest.param({"MARKETS": "30000142"}, "MARKETS is '30000142': give REGION as well", id="markets of no region"),
        pytest.param(
            {"MARKETS": "60003760 60008494"}, "MARKETS is .*: give REGION as well", id="markets of two regions"
        ),
        pytest.param(
            {"REGION": "10000043", "MARKETS": "10000002"},
            "10000002, which is not in region 10000043",
            id="another region",
        ),
        pytest.param({"MARKETS": "60003760 60003760"}, "MARKETS is .*: give each market once", id="a market twice"),
        pytest.param({"STORE": "gcp"}, "STORE is 'gcp': give local, .* or aws", id="store"),
        pytest.param({"ESI_URL": "esi.evetech.net"}, "ESI_URL is 'esi.evetech.net': give an http", id="url"),
        pytest.param({"ESI_URL": "http://esi.evetech.net"}, "plain http is for this machine only", id="plain http"),
        pytest.param({"STORE": "aws"}, "would fill your account with made-up orders", id="made-up orders"),
    ],
)
def test_invalid_options_are_refused(environ: dict[str, str], message: str) -> None:
    """An invalid value is refused in one line that has the value and what to give instead."""
    with pytest.raises(ValueError, match=message):
        read_options(environ)


def test_account_can_be_read_without_a_market() -> None:
    """With STORE=aws, only commands that fill tables require ESI_URL; those that read tables do not."""
    assert read_options({"STORE": "aws"}, fills=False) == Options(DEFAULT_REGION, "aws", "")


def test_user_settings_do_not_reach_the_stack() -> None:
    """The user's AWS, Prefect and Python settings are not inherited; a proxy is, except for this machine."""
    environ = base_environment(USER) | aws_environment("http://127.0.0.1:1", USER)
    assert "planted" not in environ.values()
    assert not {"AWS_PROFILE", "AWS_ENDPOINT_URL", "PREFECT_API_URL", "PYTHONPATH"} & environ.keys()
    assert environ["AWS_ENDPOINT_URL_DYNAMODB"] == "http://127.0.0.1:1"
    assert environ["AWS_SHARED_CREDENTIALS_FILE"] == environ["AWS_CONFIG_FILE"] == os.devnull
    assert (environ["HTTP_PROXY"], environ["NO_PROXY"]) == ("http://proxy:3128", "intranet,127.0.0.1,localhost")


def test_settings_of_the_own_account_are_kept() -> None:
    """With STORE=aws, boto3 gets exactly the user's settings."""
    environ = aws_environment("", USER)
    assert environ == {name: value for name, value in USER.items() if name.startswith("AWS_")}


def test_made_up_and_real_orders_never_meet() -> None:
    """Each market has its own store, so that made-up orders never count as a table's newest snapshot."""
    made_up, real = Options(10000015, "local", ""), Options(10000015, "local", "https://esi.evetech.net")
    assert (made_up.store_folder.name, real.store_folder.name) == ("made-up", "https-esi.evetech.net")


def test_suggested_commands_repeat_the_options() -> None:
    """The commands suggested next have the same options."""
    assert not Options(10000015, "local", "").given
    given = Options(10000002, "aws", "https://esi.evetech.net").given
    assert given == "REGION=10000002 STORE=aws ESI_URL=https://esi.evetech.net "
    markets = Options(DEFAULT_REGION, "local", "", (DEFAULT_REGION, 60003760))
    assert markets.given == "REGION=10000015 MARKETS='10000015 60003760' "
    assert read_options({"REGION": "10000015", "MARKETS": "10000015 60003760"}) == markets


def test_markets_have_their_own_table() -> None:
    """Markets use the deployment for any region and a table with the key market_type; a region alone does not."""
    options = Options(10000002, "local", "", (60003760, 10000002))
    assert (options.deployment, options.table_name) == ("market-data/region", "Markets-10000002")
    filled = {"table_name": "Markets-{region_id}", "key": "market_type", "markets": [60003760, 10000002]}
    assert options.parameters == filled | {"region_id": 10000002}
    market_data.validate_parameters(options.parameters)
    alone = Options(10000002, "local", "")
    assert (alone.deployment, alone.table_name, alone.parameters) == (
        "market-data/the-forge",
        "MarketData-10000002",
        {},
    )
