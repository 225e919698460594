"""EVE Online's single sign-on: an access token from a refresh token, for what ESI shows a character alone.

https://docs.esi.evetech.net/docs/sso/refreshing_access_tokens.html
"""

import threading
import time
from collections.abc import Callable, Generator

import httpx
import msgspec

from tasks.esi.answers import SSO_TROUBLE, find_class, find_error
from tasks.esi.errors import DeniedError, RefusedError, TransientError
from tasks.network import TIMEOUT, check_url, trusted

DEFAULT_URL = "https://login.eveonline.com/v2/oauth/token"
EARLY_SECONDS = 60.0  # before its end a token is refreshed
REFUSALS = {400, 401, 403}  # of what was sent; they may be EVE SSO's own trouble, too
PASSING = {"temporarily_unavailable", "server_error"}  # errors that are, by their own word
NOT_TAKEN = {"invalid_grant": "the refresh token", "invalid_client": "client_id and client_secret"}  # RFC 6749, 5.2


class Credentials(msgspec.Struct, frozen=True):
    """Who asks, and for which character. It shows nothing of itself."""

    client_id: str
    refresh_token: str
    client_secret: str = ""  # an application that uses PKCE has none

    def __repr__(self) -> str:
        return "Credentials(…)"


class Grant(msgspec.Struct, frozen=True):
    """What the token endpoint answers, as far as it counts."""

    access_token: str
    expires_in: float  # seconds
    refresh_token: str = ""  # another one than was given, or empty


class SsoAuth(httpx.Auth):
    """Add the access token to each request, and get a new one before it ends, or when ESI has refused it.

    Args:
        credentials: of the application and the character.
        url: of the token endpoint.
        keep: is given the credentials when the endpoint has changed the refresh token: the old one may not work again.

    Raises:
        ValueError: `url` is no https address, nor one of this machine.
    """

    def __init__(self, credentials: Credentials, url: str, keep: Callable[[Credentials], None]) -> None:
        self._credentials = credentials
        self._url = check_url(url, "ESI_SSO_URL", DEFAULT_URL)
        self._keep = keep
        self._lock = threading.Lock()
        self._token, self._ends = "", 0.0  # monotonic time
        self._is_kept = True  # the refresh token, where the next run finds it

    def sync_auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Send a request with a token, and once more with a new one if it is answered 401.

        A token that was answered 401 or 403 is not used again.

        Raises:
            TransientError: the endpoint could not be reached, or failed.
            RefusedError: it refused the refresh token.
        """
        token = self._give_token()
        request.headers["Authorization"] = f"Bearer {token}"
        response = yield request
        if response.status_code == httpx.codes.UNAUTHORIZED:  # most likely it has just ended
            self._drop(token)
            token = self._give_token()
            request.headers["Authorization"] = f"Bearer {token}"
            response = yield request
        if response.status_code in {httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN}:
            self._drop(token)

    def _drop(self, token: str) -> None:
        with self._lock:
            if self._token == token:
                self._token = ""

    def _give_token(self) -> str:
        with self._lock:
            if not self._token or time.monotonic() > self._ends - EARLY_SECONDS:
                begun = time.monotonic()
                grant = self._refresh()
                self._token, self._ends = grant.access_token, begun + grant.expires_in
                if grant.refresh_token not in {"", self._credentials.refresh_token}:
                    self._credentials = msgspec.structs.replace(self._credentials, refresh_token=grant.refresh_token)
                    self._is_kept = False
            if not self._is_kept:
                self._keep(self._credentials)
                self._is_kept = True
            return self._token

    def _refresh(self) -> Grant:
        form = {"grant_type": "refresh_token", "refresh_token": self._credentials.refresh_token}
        login = httpx.BasicAuth(self._credentials.client_id, self._credentials.client_secret)
        if not self._credentials.client_secret:
            form["client_id"] = self._credentials.client_id
        try:
            answer = httpx.post(
                self._url,
                data=form,
                auth=login if self._credentials.client_secret else None,
                timeout=TIMEOUT.read,
                verify=trusted(),
            )
        except httpx.HTTPError as error:
            raise TransientError(f"EVE SSO: {type(error).__name__} from {self._url}", "EVE SSO") from error
        return read_grant(answer)


def read_grant(answer: httpx.Response) -> Grant:
    """Read what the token endpoint answers; a message never has what it sent.

    Raises:
        TransientError: it failed, is busy, or sent no token.
        DeniedError: it refused the refresh token or the application.
        RefusedError: it is no token endpoint.
    """
    status, kind, error = answer.status_code, find_class(answer), find_error(answer.content)
    if kind is None:
        try:
            return msgspec.json.decode(answer.content, type=Grant)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise TransientError("EVE SSO answered 200, but with no access token", "EVE SSO") from None
    if issubclass(kind, TransientError) or error in PASSING:
        raise TransientError(f"EVE SSO answered {status}", f"EVE SSO {status}")
    if status in REFUSALS:
        what = NOT_TAKEN.get(error, "the refresh token, or client_id and client_secret")
        raise DeniedError(
            f"EVE SSO answered {status}: it does not take {what}",
            f"and so it did again: {SSO_TROUBLE}, or what the Secret block has is not valid any more; for a refresh "
            "token, authorise the character again and store the new one there",
            f"EVE SSO {status}",
        )
    raise RefusedError(f"EVE SSO answered {status}, as no token endpoint does; is ESI_SSO_URL right?")
