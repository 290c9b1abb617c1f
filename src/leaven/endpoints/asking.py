"""How is an endpoint asked for the answers to rows?"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from leaven.client.http1 import Reply, Request, to_bytes
from leaven.endpoints.description import Endpoint
from leaven.endpoints.failures import EndpointFailed, Reason
from leaven.endpoints.pool import Pool, Progress, Stage
from leaven.endpoints.secrets import Secrets

_REPLY_BYTES, _REPLY_BYTES_OF_A_ROW = 128 * 1024, 1024  # headers among them
_FACTS_BYTES = 2**20  # of what a server tells about a model

Columns = Mapping[str, NDArray[Any]]


class Asking:
    """Asks one endpoint; of one event loop, but may be made on any thread."""

    def __init__(
        self, endpoint: Endpoint, *, variable: Callable[[str], str | None], timer: Callable[[], float]
    ) -> None:
        """Make what asks.

        Args:
            endpoint: Whom, and how.
            variable: Gives the value of an environment variable, for headers.
            timer: Seconds that pass, from any start.
        """
        self.endpoint = endpoint
        self._secrets = Secrets(endpoint.headers, variable=variable, timer=timer)
        self._no_tls: EndpointFailed | None = None
        tls: ssl.SSLContext | None = None
        try:
            tls = ssl.create_default_context(cafile=endpoint.ca) if endpoint.is_secure else None
        except OSError as error:  # a file that is not there on this machine: the arm's failure, not the gateway's
            self._no_tls = EndpointFailed("not asked", f"cannot be checked: {endpoint.ca}: {error}"[:300])
        self.pool = Pool(
            endpoint.host, endpoint.port, tls=tls, connect_seconds=endpoint.connect, at_once=endpoint.at_once,
            waiting=endpoint.waiting, timer=timer,
        )  # fmt: skip

    async def answers(self, columns: Columns, count: int, *, seconds: float) -> NDArray[np.float64]:
        """Return the answers to `count` rows, shape (count,), within `seconds`; what is no number is NaN.

        Raises:
            EndpointFailed: there are none.
        """
        progress = Progress()
        try:
            async with asyncio.timeout(seconds):
                return await self._in_parts(columns, count, progress)
        except TimeoutError:
            raise EndpointFailed(*_out_of_time(progress.stage, seconds)) from None

    async def facts(self, below: str, *, seconds: float) -> Any:
        """Return the JSON that the server has at a path.

        Raises:
            EndpointFailed: it has none.
        """
        progress = Progress()
        data = self._request("GET", self.endpoint.path(below), b"", None)
        try:
            async with asyncio.timeout(seconds):
                reply = await self.pool.exchange(data, limit=_FACTS_BYTES, progress=progress)
        except TimeoutError:
            raise EndpointFailed(*_out_of_time(progress.stage, seconds)) from None
        _check_status(reply)
        try:
            return msgspec.json.decode(reply.body)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise EndpointFailed("no answer", f"answered what is no JSON: {error}"[:300]) from None

    async def _in_parts(self, columns: Columns, count: int, progress: Progress) -> NDArray[np.float64]:
        most = self.endpoint.rows
        if count <= most:
            return await self._part(columns, count, progress)
        parts = [slice(start, min(start + most, count)) for start in range(0, count, most)]
        said = await asyncio.gather(
            *(
                self._part({name: column[part] for name, column in columns.items()}, part.stop - part.start, progress)
                for part in parts
            ),
            return_exceptions=True,
        )
        for each in said:
            if isinstance(each, BaseException):
                raise each
        return np.concatenate([each for each in said if not isinstance(each, BaseException)])

    async def _part(self, columns: Columns, count: int, progress: Progress) -> NDArray[np.float64]:
        mapping = self.endpoint.mapping
        body, json_length = mapping.body(columns, count)
        data = self._request("POST", self.endpoint.path(mapping.target), body, json_length)
        limit = _REPLY_BYTES + _REPLY_BYTES_OF_A_ROW * count
        reply = await self.pool.exchange(data, limit=limit, progress=progress)
        _check_status(reply)
        return mapping.answers(reply.body, reply.headers.get("inference-header-content-length"), count)

    def _request(self, method: str, path: str, body: bytes, json_length: int | None) -> bytes:
        if self._no_tls is not None:
            raise self._no_tls
        headers: list[tuple[str, str]] = [("user-agent", "leaven"), *self._secrets.headers()]
        if json_length is not None:
            headers.append(("content-type", "application/octet-stream"))
            headers.append(("inference-header-content-length", str(json_length)))
        elif body:
            headers.append(("content-type", "application/json"))
        request = Request(method, path, body, tuple(headers))
        return to_bytes(request, host=self.endpoint.authority, prefix="", common=())


def _out_of_time(stage: Stage, seconds: float) -> tuple[Reason, str]:
    if stage == "waiting":
        return "busy", f"was not asked within {seconds:g} s: its connections from here were all in use"
    if stage == "connecting":
        return "no connection", f"took no connection within {seconds:g} s"
    return "too slow", f"did not answer within {seconds:g} s"


def _check_status(reply: Reply) -> None:
    status = reply.status
    if status == 200:
        if reply.headers.get("content-encoding", "identity").strip().lower() != "identity":
            raise EndpointFailed("no answer", "sent a packed reply, which nobody asked for")
        return
    if 300 <= status < 400:
        where = reply.headers.get("location", "nowhere")
        raise EndpointFailed("no answer", f"answered {status}, a redirect to {where[:100]!r}, which is not followed")
    reason: Reason = "server error" if status >= 500 or status in (408, 425, 429) else "refused"
    reason = reason if status >= 400 else "no answer"
    raise EndpointFailed(reason, f"answered {status}{_said(reply.body)}")


def _said(body: bytes) -> str:
    """The text of an error, as far as it is one."""
    text: Any = body[:2000].decode("utf-8", "replace")
    try:
        facts = msgspec.json.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        facts = None
    if isinstance(facts, dict):
        text = next((facts[key] for key in ("error", "detail", "message") if key in facts), text)
    shown = " ".join(_printable(str(text)).split())[:200].rstrip(".")  # what it stands in ends the sentence
    return f": {shown}" if shown else ""


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in text)


def names_of(items: Sequence[Any]) -> str:
    """Return some names as an error shows them."""
    return ", ".join(str(item)[:60] for item in items[:12]) + (", …" if len(items) > 12 else "") or "none"
