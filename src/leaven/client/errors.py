"""What can go wrong between an application and its gateway?"""

from __future__ import annotations

from leaven.errors import LeavenError


class BadCall(LeavenError, ValueError):
    """A call was made with something that cannot be sent; nothing was."""

    def __init__(self, where: str, what: str, mend: str) -> None:
        super().__init__(where, what, mend)
        self.where, self.what, self.mend = where, what, mend

    def __str__(self) -> str:
        return f"{self.where}: {self.what}. {self.mend}"


class GatewayUnavailable(LeavenError, RuntimeError):
    """No answer in time: the gateway cannot be reached, is overloaded, or is starting. It may be asked again later."""

    def __init__(self, url: str, why: str, attempts: int, retry_after: float | None = None) -> None:
        super().__init__(url, why, attempts, retry_after)
        self.url, self.why, self.attempts, self.retry_after = url, why, attempts, retry_after

    def __str__(self) -> str:
        tries = "1 attempt" if self.attempts == 1 else f"{self.attempts} attempts"
        when = "" if self.retry_after is None else f" It asks to be left alone for {self.retry_after:g} s."
        return (
            f"the gateway at {self.url} gave no answer in {tries}: {self.why}.{when} "
            "See that it runs and can be reached from here, or allow more time."
        )


class Refused(LeavenError, RuntimeError):
    """The gateway answered, and says no; `status` is HTTP's, `error` is what it said. The same call gets the same."""

    def __init__(self, status: int, error: str) -> None:
        super().__init__(status, error)
        self.status, self.error = status, error

    def __str__(self) -> str:
        mend = {
            401: " Give the client a token: Client(url, token=…).",
            403: " Ask for a token whose role allows this.",
        }.get(self.status, "")
        return f"the gateway refused this ({self.status}): {self.error}{mend}"


class UnreadableReply(LeavenError, RuntimeError):
    """What came back is no reply of a Leaven gateway."""

    def __init__(self, url: str, what: str) -> None:
        super().__init__(url, what)
        self.url, self.what = url, what

    def __str__(self) -> str:
        return f"{self.url} answered what no gateway of this version does: {self.what}. Is that its address?"


class SpoolFull(LeavenError, RuntimeError):
    """Feedback could neither be delivered nor kept: the spool has reached its limit."""

    def __init__(self, folder: str, used: int, limit: int) -> None:
        super().__init__(folder, used, limit)
        self.folder, self.used, self.limit = folder, used, limit

    def __str__(self) -> str:
        return (
            f"the spool {self.folder} holds {self.used} of at most {self.limit} bytes; this feedback was not kept. "
            "Bring the gateway back, look at what was set aside in rejected.ndjson and remove it, "
            "or raise spool_limit."
        )


class SpoolFailed(LeavenError, RuntimeError):
    """Feedback could neither be delivered nor kept: the spool's disk does not take it."""

    def __init__(self, folder: str, why: str) -> None:
        super().__init__(folder, why)
        self.folder, self.why = folder, why

    def __str__(self) -> str:
        return f"the spool {self.folder} cannot be written: {self.why}. This feedback was not kept."
