"""The credentials for EVE SSO, in a Secret block of Prefect's, which the server keeps encrypted."""

import os
from typing import Any, cast

import httpx
import msgspec
from prefect.blocks.system import Secret
from prefect.exceptions import PrefectException

from tasks.esi.errors import RefusedError, TransientError
from tasks.esi.sso import DEFAULT_URL, Credentials, SsoAuth

BLOCK = "eve-sso"


def sign_in(block: str = BLOCK) -> SsoAuth:
    """Return what authorises requests to ESI, from the block; a refresh token that EVE SSO changes is put back there.

    Raises:
        RefusedError: there is no such block, or something is missing in it.
        ValueError: `ESI_SSO_URL` is no https address.
    """
    url = os.environ.get("ESI_SSO_URL") or DEFAULT_URL
    return SsoAuth(load_credentials(block), url, lambda credentials: keep_credentials(credentials, block))


def load_credentials(block: str) -> Credentials:
    """Read the credentials from a Secret block.

    Raises:
        RefusedError: there is no such block, or something is missing in it.
    """
    try:
        stored: Any = cast("Secret[Any]", Secret.load(block)).get()
        return msgspec.convert(stored, Credentials) if isinstance(stored, dict) else read_text(stored)
    except (ValueError, msgspec.ValidationError) as error:
        why = "has no such block" if "Unable to find" in str(error) else "holds something else in it"
        raise RefusedError(
            f"Secret block {block!r}: the server {why}; store client_id, refresh_token and, if the application has "
            "one, client_secret there, as JSON"
        ) from None


def read_text(stored: str) -> Credentials:
    """Read credentials that the UI's form has stored as text.

    Raises:
        ValueError: it is no JSON, or something is missing in it.
    """
    return msgspec.json.decode(stored, type=Credentials)


def keep_credentials(credentials: Credentials, block: str) -> None:
    """Put the credentials into a Secret block.

    Raises:
        TransientError: Prefect's server could not be reached, or refused.
    """
    try:
        Secret(value=msgspec.to_builtins(credentials)).save(block, overwrite=True)
    except (httpx.HTTPError, PrefectException) as error:
        told = f"EVE SSO has changed the refresh token, but Prefect's server did not take it: {type(error).__name__}"
        raise TransientError(told, "Prefect's server") from error
