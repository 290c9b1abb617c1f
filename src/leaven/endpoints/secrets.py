"""What do the headers of a request say, of which only the place is written down?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from leaven.endpoints.description import Header
from leaven.endpoints.failures import EndpointFailed

_SECONDS = 10.0  # after which a file is read again: tokens are exchanged while processes run
_MOST = 16 * 1024  # bytes of a value


class Secrets:
    """The headers of one endpoint, with their values."""

    def __init__(
        self, headers: Sequence[Header], *, variable: Callable[[str], str | None], timer: Callable[[], float]
    ) -> None:
        """Take values from `variable(name)`, or from files."""
        self._headers, self._variable, self._timer = headers, variable, timer
        self._kept: list[tuple[str, str]] = []
        self._read_at: float | None = None

    def headers(self) -> Sequence[tuple[str, str]]:
        """Return names and values.

        Raises:
            EndpointFailed: a value is not there, or none that a header can have.
        """
        now = self._timer()
        if self._read_at is None or now - self._read_at >= _SECONDS:
            self._kept = [(header.name, header.before + self._value(header)) for header in self._headers]
            self._read_at = now
        return self._kept

    def _value(self, header: Header) -> str:
        where = f"variable {header.env}" if header.env is not None else f"file {header.file}"
        value = self._variable(header.env) if header.env is not None else _content(str(header.file), header.name)
        value = (value or "").strip()
        if not value:
            raise EndpointFailed("not asked", f"needs header {header.name}, and {where} holds nothing here")
        if not value.isascii() or not value.isprintable():
            raise EndpointFailed("not asked", f"needs header {header.name}, and {where} holds what no header can")
        return value


def _content(path: str, name: str) -> str:
    try:
        with Path(path).open("rb") as opened:
            return opened.read(_MOST).decode("latin-1")
    except OSError as error:
        raise EndpointFailed("not asked", f"needs header {name}, and {path} cannot be read: {error.strerror}") from None
