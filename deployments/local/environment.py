"""The embedded stack's options, and the environment of its processes, which is set here and not inherited."""

import os
import re
import shlex
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote, urlsplit

import msgspec

from flows.parameters import check_markets
from tasks.catalogue.names import HUBS, regions
from tasks.esi.client import DEFAULT_URL
from tasks.esi.markets import find_market, is_market
from tasks.network import check_url, is_this_machine

CHECKOUT = Path(__file__).parents[2]
STATE = CHECKOUT / ".local"  # everything that the stack writes
VENV = CHECKOUT / ".venv"
STORE_VENV = CHECKOUT / ".venv-store"
POOL = "market-data"
DEPLOYMENTS = {10000015: "venal", 10000002: "the-forge"}
DEFAULT_REGION = 10000015
MARKETS_TABLE = "Markets-{region_id}"  # with the key market_type
PREFECT_SETTINGS = Path(__file__).with_name("prefect-settings.toml")
# The user's settings of these must not reach the stack: a stray AWS_PROFILE must not fill a real account.
PRIVATE = re.compile(r"(AWS_|PREFECT_|PYTHONPATH$|PYTHONHOME$|VIRTUAL_ENV$|MAKE|MFLAGS$)")


class Options(msgspec.Struct, frozen=True):
    """The options of `make`."""

    region_id: int
    store: Literal["local", "aws"]
    esi_url: str  # empty for the stand-in
    markets: tuple[int, ...] = ()  # in the region, the one to show first; empty for the region alone

    @property
    def deployment(self) -> str:
        """The deployment to run: the region's own, unless other markets are asked for."""
        return f"market-data/{'region' if self.markets else DEPLOYMENTS.get(self.region_id, 'region')}"

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters that the deployment does not have by itself."""
        if self.markets:
            table = {"table_name": MARKETS_TABLE, "key": "market_type", "markets": list(self.markets)}
            return {"region_id": self.region_id} | table
        return {} if self.region_id in DEPLOYMENTS else {"region_id": self.region_id}

    @property
    def table_name(self) -> str:
        """The table: `MarketData` for the default region, one of its own for any other, and one for its markets."""
        if self.markets:
            return MARKETS_TABLE.replace("{region_id}", str(self.region_id))
        return "MarketData" if self.region_id == DEFAULT_REGION else f"MarketData-{self.region_id}"

    @property
    def market_id(self) -> int | None:
        """The market to show of a table that has many; None for the table of a region alone."""
        return self.markets[0] if self.markets else None

    @property
    def store_folder(self) -> Path:
        """The local store's folder, one for each market: made-up and real orders never share a table."""
        return STATE / "store" / (re.sub(r"[^A-Za-z0-9.-]+", "-", self.esi_url) or "made-up")

    @property
    def given(self) -> str:
        """The variables to put before `make` for the same options, with a blank at the end; empty for the defaults."""
        given = {
            "REGION": "" if self.region_id == DEFAULT_REGION and not self.markets else str(self.region_id),
            "MARKETS": " ".join(map(str, self.markets)),
            "STORE": "" if self.store == "local" else self.store,
            "ESI_URL": self.esi_url,
        }
        return "".join(f"{name}={shlex.quote(value)} " for name, value in given.items() if value)


def read_options(environ: Mapping[str, str], *, fills: bool = True) -> Options:
    """Return the options that REGION, MARKETS, MARKET, STORE and ESI_URL give.

    Raises:
        ValueError: a value is invalid, or a command that `fills` tables would fill an account with made-up orders.
    """
    region, store, url = (environ.get(name, "").strip() for name in ("REGION", "STORE", "ESI_URL"))
    chosen, listed = read_markets(environ, "MARKET"), read_markets(environ, "MARKETS")
    markets = tuple(dict.fromkeys(chosen + listed)) if chosen else listed
    region = region or find_region(markets)
    region_id = int(region) if region.isascii() and region.isdigit() else 0
    if not 10_000_000 <= region_id <= 19_999_999 or not (url or region_id in regions()):
        raise ValueError(f"REGION is {region!r}: give a region's id, such as 10000002 for The Forge")
    try:
        check_markets(region_id, list(markets), MARKETS_TABLE, "market_type")
    except ValueError as error:
        raise ValueError(f"MARKETS is {' '.join(map(str, markets))!r}: {error}") from None
    if store not in {"", "local", "aws"}:
        raise ValueError(f"STORE is {store!r}: give local, which is the default, or aws for your own account")
    endpoint = environ.get("AWS_ENDPOINT_URL_DYNAMODB") or environ.get("AWS_ENDPOINT_URL") or ""
    if url:
        check_url(url, "ESI_URL", DEFAULT_URL)
    elif fills and store == "aws" and not is_this_machine(urlsplit(endpoint).hostname or ""):
        raise ValueError("STORE=aws without ESI_URL would fill your account with made-up orders: give ESI_URL as well")
    markets = () if markets == (region_id,) and not chosen else markets
    return Options(region_id, "aws" if store == "aws" else "local", url, markets)


def read_markets(environ: Mapping[str, str], name: str) -> tuple[int, ...]:
    """Return the ids in a variable, separated by blanks or commas; raise ValueError if one is not a market's."""
    given = environ.get(name, "").strip()
    ids = re.split(r"[\s,]+", given) if given else []
    if not all(each.isascii() and each.isdigit() and is_market(int(each)) for each in ids):
        raise ValueError(
            f"{name} is {given!r}: give ids of markets in one region: itself, systems, stations such as 60003760 for "
            "Jita 4-4, or structures"
        )
    return tuple(map(int, ids))


def find_region(markets: tuple[int, ...]) -> str:
    """Return the region of markets, by the region or the hubs among them; the default region without any."""
    found = {HUBS[each].region_id if each in HUBS else each for each in markets or [DEFAULT_REGION]}
    regions_found = [str(each) for each in found if find_market(each).kind == "region"]
    if len(regions_found) != 1:
        wanted = " ".join(map(str, markets))
        raise ValueError(
            f"REGION is '', and MARKETS is {wanted!r}: give REGION as well, the region that they are all in"
        )
    return regions_found[0]


def base_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return a user's environment without the settings of Prefect, AWS and Python that would change the stack."""
    kept = {name: value for name, value in environ.items() if not PRIVATE.match(name)}
    bare = ",".join(filter(None, [environ.get("NO_PROXY") or environ.get("no_proxy", ""), "127.0.0.1", "localhost"]))
    own = {"NO_PROXY": bare, "no_proxy": bare, "PYTHONUNBUFFERED": "1", "TMPDIR": str(STATE / "tmp")}
    return kept | own | {"PATH": f"{VENV / 'bin'}{os.pathsep}{environ.get('PATH', os.defpath)}"}


def aws_environment(store_url: str, environ: Mapping[str, str]) -> dict[str, str]:
    """Return boto3's settings: only the local store, or the user's own if it has no address, with `STORE=aws`."""
    if not store_url:
        return {name: value for name, value in environ.items() if name.startswith("AWS_")}
    return {
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_ENDPOINT_URL_DYNAMODB": store_url,
    }


def store_environment(port: int, folder: Path, *, is_kept: bool = False) -> dict[str, str]:
    """Return the settings of a DynamoDB-compatible store, whose tables in `folder` may outlive it."""
    return {
        "BIND_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(port),
        "SERVICES": "dynamodb",
        "PERSIST_STATE": str(int(is_kept)),
        "STATE_DIR": str(folder),
        "IOT_MTLS_ENABLED": "0",
    }


def prefect_environment(api_url: str, home: Path = STATE / "prefect") -> dict[str, str]:
    """Return the settings of Prefect's server, worker and commands, which keep their files in `home`."""
    return tomllib.loads(PREFECT_SETTINGS.read_text(encoding="utf-8")) | {
        "PREFECT_API_URL": api_url,
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": api_url.removesuffix("/api"),
        "PREFECT_HOME": str(home),
        "PREFECT_PROFILES_PATH": str(home / "profiles.toml"),
        # See docs/decisions/one-sqlite-connection.md: with `:memory:` in the address, Prefect opens a single one.
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": (
            f"sqlite+aiosqlite:///file:{quote(str(home / 'prefect.db'))}?uri=true&connections=:memory:"
        ),
    }


def replace_settings(prefix: str, wanted: Mapping[str, str]) -> None:
    """Replace this process's environment variables that start with a prefix."""
    for name in [name for name in os.environ if name.startswith(prefix)]:
        del os.environ[name]
    os.environ.update(wanted)
