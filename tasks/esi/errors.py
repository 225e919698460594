"""Errors from ESI or another API: the class says what happens next."""


class EsiError(Exception):
    """No usable response from the API."""

    tried = "It was requested once."  # before the run failed
    advice = "See the message."  # what to do

    def __init__(self, message: str, cause: str = "unreadable answer") -> None:
        super().__init__(message)
        self.cause = cause  # a word or two, for the counts


class TransientError(EsiError):
    """A timeout, a broken connection, an undecodable body or a transient status: may pass."""

    tried = "It was retried with exponential backoff."
    advice = (
        "See the message. Nothing if the API is down, as ESI is each day at 11:00 UTC: the next run catches up. If it "
        "lasts, check that this machine can reach it."
    )


class RateLimitedError(TransientError):
    """420 or 429, or an overload: all requests pause for `pause_seconds`."""

    tried = "It was retried, and before each retry all requests paused as long as the API said."
    advice = "Fetch less, or less often: other programs at this IP address count too."

    def __init__(self, message: str, cause: str, pause_seconds: float) -> None:
        super().__init__(message, cause)
        self.pause_seconds = pause_seconds


class RefusedError(EsiError):
    """A retry would get the same response."""

    tried = "It was not retried: a retry would get the same response."
    advice = "See the message; the next run tries again."


class NotFoundError(RefusedError):
    """404: no such region or endpoint, or a page past the end."""


class DeniedError(RefusedError):
    """ESI or EVE SSO refused an authorised request; final only if it also refuses a new access token."""

    tried = "It was retried once, with a new access token."

    def __init__(self, denial: str, advice: str = "", cause: str = "denied") -> None:
        super().__init__(f"{denial}; {advice}", cause)
        self.denial = denial
