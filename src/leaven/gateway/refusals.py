"""What does the gateway refuse, and with which HTTP status?"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from leaven.errors import LeavenError
from leaven.events.log import LogUnavailable
from leaven.events.records import PredictionServed
from leaven.training.encoding import BadFeature


class BadRequest(LeavenError, ValueError):
    """A request cannot be read as what it claims to be."""

    def __init__(self, where: str, what: str, mend: str) -> None:
        super().__init__(where, what, mend)
        self.where, self.what, self.mend = where, what, mend

    def __str__(self) -> str:
        return f"{self.where}: {self.what}. {self.mend}"


class UnknownModel(LeavenError, LookupError):
    """A request names a model that this gateway does not serve."""

    def __init__(self, model: str, served: Collection[str]) -> None:
        super().__init__(model, served)
        self.model, self.served = model, served

    def __str__(self) -> str:
        return f"no model {shown(self.model)} is served here. There is {', '.join(sorted(self.served)) or 'none yet'}."


class HasNoModel(LeavenError, ValueError):
    """A request asks for an answer of a loop whose versions are sets of parameters."""

    def __init__(self, loop: str) -> None:
        super().__init__(loop)
        self.loop = loop

    def __str__(self) -> str:
        return (
            f"loop {self.loop!r} has no model to ask: its versions are sets of parameters. "
            'Send {"loop", "unit"} to /v1/assign to get those of a unit.'
        )


class OutOfService(LeavenError, RuntimeError):
    """A request names a model that somebody has unloaded."""

    def __init__(self, model: str) -> None:
        super().__init__(model)
        self.model = model

    def __str__(self) -> str:
        return (
            f"model {shown(self.model)} was unloaded on request. "
            f"POST /v2/repository/models/{self.model}/load puts it back into service."
        )


class CannotLoad(LeavenError, RuntimeError):
    """A model cannot be brought into service, or out of it."""

    def __init__(self, model: str, why: str) -> None:
        super().__init__(model, why)
        self.model, self.why = model, why

    def __str__(self) -> str:
        return f"model {shown(self.model)} was not changed: {self.why}. The log of the gateway says more; try again."


class NotOffered(LeavenError, NotImplementedError):
    """A request is for a part of the protocol that this server does not have."""

    def __init__(self, what: str, instead: str) -> None:
        super().__init__(what, instead)
        self.what, self.instead = what, instead

    def __str__(self) -> str:
        return f"{self.what} are not offered here. {self.instead}"


class UnknownVersion(LeavenError, LookupError):
    """A request names a version that is not loaded."""

    def __init__(self, model: str, version: str, loaded: Collection[str]) -> None:
        super().__init__(model, version, loaded)
        self.model, self.version, self.loaded = model, version, loaded

    def __str__(self) -> str:
        return (
            f"version {shown(self.version)} of model {self.model!r} is not loaded. "
            f"Loaded: {', '.join(sorted(self.loaded))}; leave the version out to get the one assigned."
        )


class UnknownPath(LeavenError, LookupError):
    """A request goes to a path at which there is nothing."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path

    def __str__(self) -> str:
        return f"there is nothing at {shown(self.path)}. Predict at /v2/models/MODEL/infer, report at /v1/feedback."


class WrongMethod(LeavenError, ValueError):
    """A path was asked with a method it does not take."""

    def __init__(self, method: str, allowed: str) -> None:
        super().__init__(method, allowed)
        self.method, self.allowed = method, allowed

    def __str__(self) -> str:
        return f"this path does not take {shown(self.method)}. Use {self.allowed}."


class TooLarge(LeavenError, ValueError):
    """A request is longer than the gateway reads."""

    def __init__(self, what: str, limit: int) -> None:
        super().__init__(what, limit)
        self.what, self.limit = what, limit

    def __str__(self) -> str:
        return f"{self.what} is larger than {self.limit} bytes. Send it in parts."


class HeadTooLarge(LeavenError, ValueError):
    """The head of a request is longer than the gateway reads."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.limit = limit

    def __str__(self) -> str:
        return f"the request's headers are too many, or longer than {self.limit} bytes. Send fewer, or use the body."


class UrlTooLong(LeavenError, ValueError):
    """A request's path and query are longer than the gateway reads."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.limit = limit

    def __str__(self) -> str:
        return f"the request's URL is longer than {self.limit} bytes. Send what it says in the body."


class TooManyConnections(LeavenError, RuntimeError):
    """More callers are connected than this process takes."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.limit = limit

    def __str__(self) -> str:
        return f"{self.limit} connections are open to this worker. Use those you have again, or try in a second."


class TooSlow(LeavenError, TimeoutError):
    """A request took longer to arrive than the gateway waits."""

    def __init__(self, what: str, seconds: float) -> None:
        super().__init__(what, seconds)
        self.what, self.seconds = what, seconds

    def __str__(self) -> str:
        return f"{self.what} was not complete within {self.seconds:g} s. Send it faster, or in parts."


class Overloaded(LeavenError, RuntimeError):
    """More is under way than the gateway takes at once."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what

    def __str__(self) -> str:
        return f"{self.what} already. Send this request again in a second."


class NotReady(LeavenError, RuntimeError):
    """The gateway does not know yet what it is to serve."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what

    def __str__(self) -> str:
        return f"{self.what}: this gateway is starting and has read no routing table yet. Try again in a second."


class ModelFailed(LeavenError, RuntimeError):
    """The model that had to answer could not."""

    def __init__(self, model: str, version: str, why: str) -> None:
        super().__init__(model, version, why)
        self.model, self.version, self.why = model, version, why
        self.records: Sequence[PredictionServed] = ()  # what was written down of it

    def __str__(self) -> str:
        return (
            f"version {self.version} of model {self.model!r} could not answer: {self.why}. Roll it back, or try again."
        )


class NoToken(LeavenError, PermissionError):
    """A request names nobody, or somebody unknown."""

    def __init__(self, why: str, challenge: str) -> None:
        super().__init__(why, challenge)
        self.why, self.challenge = why, challenge

    def __str__(self) -> str:
        return f"{self.why}. Send Authorization: Bearer TOKEN; leaven token create makes one."


class NotPermitted(LeavenError, PermissionError):
    """A token is good, and not for this."""

    def __init__(self, why: str, challenge: str) -> None:
        super().__init__(why, challenge)
        self.why, self.challenge = why, challenge

    def __str__(self) -> str:
        return f"{self.why}. Use another token; leaven token create makes one."


# The one table from what was wrong to what HTTP calls it; the first class that fits counts.
STATUS: tuple[tuple[type[LeavenError], int], ...] = (
    (BadRequest, 400),
    (NoToken, 401),
    (NotPermitted, 403),
    (BadFeature, 400),
    (HasNoModel, 400),
    (UnknownModel, 404),
    (UnknownVersion, 404),
    (OutOfService, 503),
    (CannotLoad, 503),
    (NotOffered, 501),
    (UnknownPath, 404),
    (WrongMethod, 405),
    (TooLarge, 413),
    (TooSlow, 408),
    (HeadTooLarge, 431),
    (UrlTooLong, 414),
    (TooManyConnections, 503),
    (Overloaded, 503),
    (NotReady, 503),
    (ModelFailed, 503),
    (LogUnavailable, 503),
)


def status_of(error: LeavenError) -> int:
    """Return the HTTP status of `error`: 503 for one that the table does not know, since the fault is ours."""
    return next((status for kind, status in STATUS if isinstance(error, kind)), 503)


def shown(text: object, *, limit: int = 60) -> str:
    """Return what a caller sent, quoted and cut, as error texts show it."""
    quoted = repr(text)
    return quoted if len(quoted) <= limit else f"{quoted[: limit - 3]}..."
