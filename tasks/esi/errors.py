"""What goes wrong with ESI; what happens next is in the error's class."""


class EsiError(Exception):
    """ESI, or the way to it, gave no usable answer."""

    tried = "It was requested."  # before it ended the run
    advice = "What the message says."  # what to do


class TransientError(EsiError):
    """A time-out, a broken connection, an undecodable body, or a status that says so: may pass."""

    tried = "It was retried, after growing waits."
    advice = (
        "What the message says, if it names a way. Otherwise nothing, if ESI is down, as it is each day at 11:00 UTC: "
        "the next run does its work. If it lasts, check that this machine can reach ESI."
    )

    def __init__(self, message: str, cause: str = "unreadable answer") -> None:
        super().__init__(message)
        self.cause = cause  # in a word or two, to be counted


class RateLimitedError(TransientError):
    """420 or 429: nothing is asked for `pause_seconds`."""

    tried = "All requests paused as long as ESI said, each time it was retried."
    advice = "Ask for fewer regions, or less often: other programs at this address count too."

    def __init__(self, message: str, cause: str, pause_seconds: float) -> None:
        super().__init__(message, cause)
        self.pause_seconds = pause_seconds


class RefusedError(EsiError):
    """An answer that will not change by asking again."""

    tried = "Once: a retry would get the same answer."
    advice = "What the message says; the next run asks again."


class NotFoundError(RefusedError):
    """404: no such region, or a page past the end."""


class DeniedError(RefusedError):
    """ESI or EVE SSO refused an authorised request; believed if it does so again, to a new access token."""

    tried = "Twice, the second time with a new access token."

    def __init__(self, said: str, advice: str = "", cause: str = "denied") -> None:
        super().__init__(f"{said}; {advice}")
        self.said = said
        self.cause = cause  # in a word or two, to be counted
