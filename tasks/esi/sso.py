"""EVE Online's single sign-on: exchanges a refresh token for access tokens, for endpoints that are not public.

https://docs.esi.evetech.net/docs/sso/refreshing_access_tokens.html
"""

import threading
import time
from collections.abc import Callable, Generator

import httpx
import msgspec

from tasks.esi.answers import SSO_TROUBLE, find_class
from tasks.esi.body import find_error
from tasks.esi.errors import DeniedError, RefusedError, TransientError
from tasks.network import TIMEOUT, check_url, trusted

DEFAULT_URL = "https://login.eveonline.com/v2/oauth/token"
EARLY_SECONDS = 60.0  # a token is refreshed this long before it expires
REFUSALS = {400, 401, 403}  # may also be EVE SSO's own trouble
PASSING = {"temporarily_unavailable", "server_error"}  # transient errors
REJECTED = {"invalid_grant": "the refresh token", "invalid_client": "client_id and client_secret"}  # RFC 6749, 5.2


class Credentials(msgspec.Struct, frozen=True):
    """The application and the character; the repr hides all values."""

    client_id: str
    refresh_token: str
    client_secret: str = ""  # empty for an application that uses PKCE

    def __repr__(self) -> str:
        return "Credentials(…)"


class Grant(msgspec.Struct, frozen=True):
    """The token endpoint's response."""

    access_token: str
    expires_in: float  # seconds
    refresh_token: str = ""  # a new one, or empty


class SsoAuth(httpx.Auth):
    """Add an access token to each request; refresh it before it expires, or when ESI refuses it.

    `keep` saves the credentials after the refresh token has changed: the old one may no longer work. A ValueError is
    raised if `url`, the token endpoint's, is neither an https URL nor on this machine.
    """

    def __init__(self, credentials: Credentials, url: str, keep: Callable[[Credentials], None]) -> None:
        self._credentials = credentials
        self._url = check_url(url, "ESI_SSO_URL", DEFAULT_URL)
        self._keep = keep
        self._lock = threading.Lock()
        self._token, self._ends = "", 0.0  # monotonic time
        self._kept = credentials  # which the next run will find

    def sync_auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Send a request with a token, and again with a new one after a 401. Drop a token after a 401 or 403.

        The errors are those of `read_grant`; a TransientError also if the token endpoint was unreachable.
        """
        for is_last in (False, True):
            token = self._get_token()
            request.headers["Authorization"] = f"Bearer {token}"
            response = yield request
            if response.status_code in {httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN}:
                with self._lock:
                    if self._token == token:
                        self._token = ""
            if response.status_code != httpx.codes.UNAUTHORIZED or is_last:  # most likely it has just expired
                return

    def _get_token(self) -> str:
        with self._lock:
            if not self._token or time.monotonic() > self._ends - EARLY_SECONDS:
                started = time.monotonic()
                grant = self._refresh()
                self._token, self._ends = grant.access_token, started + grant.expires_in
                refresh_token = grant.refresh_token or self._credentials.refresh_token
                self._credentials = msgspec.structs.replace(self._credentials, refresh_token=refresh_token)
            if self._credentials != self._kept:
                self._keep(self._credentials)
                self._kept = self._credentials
            return self._token

    def _refresh(self) -> Grant:
        client_id, secret = self._credentials.client_id, self._credentials.client_secret
        form = {"grant_type": "refresh_token", "refresh_token": self._credentials.refresh_token}
        try:
            answer = httpx.post(
                self._url,
                data=form if secret else form | {"client_id": client_id},
                auth=(client_id, secret) if secret else None,
                timeout=TIMEOUT.read,
                verify=trusted(),
            )
        except httpx.HTTPError as error:
            raise TransientError(f"EVE SSO: {type(error).__name__} from {self._url}", "EVE SSO") from error
        return read_grant(answer)


def read_grant(answer: httpx.Response) -> Grant:
    """Read the token endpoint's response; error messages never contain its body.

    Raises:
        TransientError: it failed, is busy, or sent no token.
        DeniedError: it refused the refresh token or the application.
        RefusedError: it is not a token endpoint.
    """
    status, kind, error = answer.status_code, find_class(answer), find_error(answer.content)
    if kind is None:
        try:
            return msgspec.json.decode(answer.content, type=Grant)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise TransientError("EVE SSO answered 200, but without an access token", "EVE SSO") from None
    if issubclass(kind, TransientError) or error in PASSING:
        raise TransientError(f"EVE SSO answered {status}", f"EVE SSO {status}")
    if status in REFUSALS:
        what = REJECTED.get(error, "the refresh token, or client_id and client_secret")
        raise DeniedError(
            f"EVE SSO answered {status}: it does not accept {what}",
            f"a retry got the same answer: {SSO_TROUBLE}, or the Secret block's contents are no longer valid; to renew "
            "the refresh token, authorise the character again and store the new one there",
            f"EVE SSO {status}",
        )
    raise RefusedError(f"EVE SSO answered {status}, which no token endpoint does; is ESI_SSO_URL right?")
