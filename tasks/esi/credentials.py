"""Credentials for EVE SSO, kept in a Prefect Secret block."""

import os
from typing import Any, cast

import httpx
import msgspec
from prefect.blocks.system import Secret
from prefect.exceptions import PrefectException

from tasks.esi.errors import RefusedError, TransientError
from tasks.esi.sso import DEFAULT_URL, Credentials, SsoAuth
from tasks.network import fits_header

WHAT_TO_STORE = "store client_id, refresh_token and, if the application has one, client_secret there, as JSON"


def sign_in(block: str) -> SsoAuth:
    """Return the authorisation for ESI from a Secret block, which is updated when EVE SSO changes the refresh token.

    Raises:
        RefusedError: there is no such block, or it lacks a value.
        TransientError: Prefect's server was unreachable.
        ValueError: `ESI_SSO_URL` is not an https URL.
    """
    url = os.environ.get("ESI_SSO_URL") or DEFAULT_URL
    return SsoAuth(load_credentials(block), url, lambda credentials: keep_credentials(credentials, block))


def load_headers(block: str) -> dict[str, str]:
    """Return the headers in a Secret block, which has them by name, or only the value of `Authorization`.

    Raises:
        RefusedError: there is no such block, or its value cannot be sent.
        TransientError: Prefect's server was unreachable.
    """
    stored = load_secret(block, "store the header Authorization there")
    headers = stored if isinstance(stored, dict) else {"Authorization": str(stored)}
    for value in headers.values():
        if not (isinstance(value, str) and value and fits_header(value)):
            raise RefusedError(f"Secret block {block!r}: its value does not fit a header: store printable ASCII")
    return headers


def load_secret(block: str, advice: str) -> Any:  # noqa: ANN401 (whatever was stored)
    """Return the value of a Secret block; raise a RefusedError that ends with `advice` if there is no such block."""
    try:
        return cast("Secret[Any]", Secret.load(block)).get()
    except (httpx.HTTPError, PrefectException) as error:
        raise TransientError(f"Secret block {block!r} could not be read: {type(error).__name__}") from error
    except ValueError as error:
        if "Unable to find" not in str(error):
            raise
        raise RefusedError(f"Secret block {block!r}: the server has no such block; {advice}") from None


def load_credentials(block: str) -> Credentials:
    """Read the credentials from a Secret block."""
    try:
        stored = load_secret(block, WHAT_TO_STORE)
        given = stored if isinstance(stored, dict) else msgspec.json.decode(stored)  # the UI's form stores text
        return msgspec.convert(given, Credentials)
    except ValueError:
        raise RefusedError(f"Secret block {block!r}: the server has other contents in it; {WHAT_TO_STORE}") from None


def keep_credentials(credentials: Credentials, block: str) -> None:
    """Save credentials to a Secret block; raise a TransientError if Prefect's server was unreachable, or refused."""
    try:
        Secret(value=msgspec.to_builtins(credentials)).save(block, overwrite=True)
    except (httpx.HTTPError, PrefectException) as error:
        message = f"EVE SSO changed the refresh token, but Prefect's server did not store it: {type(error).__name__}"
        raise TransientError(message, "Prefect's server") from error
