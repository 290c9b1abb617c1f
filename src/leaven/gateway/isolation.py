"""How can a version answer that may yet hang, crash or eat memory, without disturbing those that serve?

In a process of its own, under a limit of memory, asked over a socket pair. What it does to itself costs its own arm:
requests under way fail (the champion answers them), further ones fail at once, and it is started again after a pause
that grows. Only plain data crosses the socket: numbers as raw bytes, texts as msgpack.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from leaven.errors import LeavenError
from leaven.gateway.answering import Answers, ArmDown, Columns
from leaven.gateway.batching import Done, checked

logger = logging.getLogger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
_LENGTH = struct.Struct("<I")


class _Question(msgspec.Struct, array_like=True):
    columns: dict[str, bytes | list[str | None]]  # float64 numbers as raw bytes, texts as they are
    rows: int


class _Answer(msgspec.Struct, array_like=True):
    answers: bytes  # float64, raw; empty where there is an error
    error: str | None
    seconds: float
    classes: int = 0  # numbers per row, where there are several


_encode = msgspec.msgpack.Encoder().encode
_question = msgspec.msgpack.Decoder(_Question).decode
_answer = msgspec.msgpack.Decoder(_Answer).decode


class DidNotLoad(LeavenError, RuntimeError):
    """A version could not be loaded in a process of its own."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why

    def __str__(self) -> str:
        return f"in a process of its own, {self.why}"


class ModelFailedThere(LeavenError, RuntimeError):
    """A model raised an error in its own process; the text is the error's."""

    def __init__(self, error: str) -> None:
        super().__init__(error)
        self.error = error

    def __str__(self) -> str:
        return self.error


# --- the process's side ------------------------------------------------------------------------------------------


def answer_until_closed(there: socket.socket, load: Callable[[bytes], Answers]) -> None:
    """Load what the first message names, say so, then answer until the other side is gone."""
    said = _receive(there)
    if said is None:
        return
    try:
        model = load(said)
    except Exception as error:  # whatever a library raises on a damaged or foreign artifact is for the other side
        _send(there, _Answer(b"", _told(error), 0.0))
        return
    _send(there, _Answer(b"", None, 0.0))
    while (asked := _receive(there)) is not None:
        _send(there, _answered(model, asked))


def _answered(model: Answers, asked: bytes) -> _Answer:
    question = _question(asked)
    columns = {name: _column(kept) for name, kept in question.columns.items()}
    began = time.perf_counter()
    try:
        answers = checked(model.answer(columns), question.rows)
    except Exception as error:
        return _Answer(b"", _told(error), time.perf_counter() - began)
    return _Answer(answers.tobytes(), None, time.perf_counter() - began, answers.shape[1] if answers.ndim == 2 else 0)


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:2000]


def _numbers(said: _Answer) -> NDArray[np.float64]:
    """The answers as an array that may be written to."""
    answers: NDArray[np.float64] = np.frombuffer(said.answers).copy()
    return answers.reshape(-1, said.classes) if said.classes else answers


def _column(kept: bytes | list[str | None]) -> NDArray[Any]:
    if isinstance(kept, bytes):
        return np.frombuffer(kept, dtype=np.float64)
    column = np.empty(len(kept), dtype=object)
    column[:] = kept
    return column


def _send(there: socket.socket, message: msgspec.Struct) -> None:
    body = _encode(message)
    there.sendall(_LENGTH.pack(len(body)) + body)


def _receive(there: socket.socket) -> bytes | None:
    """One message, or None where the other side is gone."""
    head = _exactly(there, _LENGTH.size)
    return None if head is None else _exactly(there, _LENGTH.unpack(head)[0])


def _exactly(there: socket.socket, count: int) -> bytes | None:
    parts = bytearray()
    while len(parts) < count:
        with suppress(ConnectionResetError):
            piece = there.recv(min(count - len(parts), 2**20))
            if piece:
                parts += piece
                continue
        return None
    return bytes(parts)


# --- the gateway's side ------------------------------------------------------------------------------------------


class ModelProcess:
    """A process that has loaded a model and waits to be asked."""

    def __init__(self, command: Sequence[str], hello: bytes, *, within: float, warm_with: Columns) -> None:
        """Start `[*command, descriptor]`, hand it `hello`, and wait until it has loaded and answered a row.

        What it says to that row does not matter: a model that fails on it is for the trial to find.

        Raises:
            DidNotLoad: it refused, ended, or took longer than `within` seconds.
        """
        here, there = socket.socketpair()
        with there:
            self.process = subprocess.Popen(
                [*command, str(there.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=2,  # ours may be read by a program
                pass_fds=(there.fileno(),),
            )
        self.socket = here
        try:
            self._wake(hello, within, warm_with)
        except DidNotLoad:
            self.socket.close()
            self.kill()
            raise

    def _wake(self, hello: bytes, within: float, warm_with: Columns) -> None:
        self.socket.settimeout(within)
        try:
            self.socket.sendall(_LENGTH.pack(len(hello)) + hello)
            said = _receive(self.socket)
            if said is not None and (error := _answer(said).error) is not None:
                raise DidNotLoad(error)
            if said is not None:
                self.socket.sendall(_framed(warm_with, 1))
                said = _receive(self.socket)
        except (TimeoutError, BrokenPipeError, ConnectionResetError) as error:
            slow = isinstance(error, TimeoutError)
            raise DidNotLoad(f"it was not ready within {within:g} s" if slow else self.ended()) from error
        if said is None:
            raise DidNotLoad(self.ended())
        self.socket.setblocking(False)

    def ended(self) -> str:
        """Return how the process ended."""
        try:
            code = self.process.wait(1.0)
        except subprocess.TimeoutExpired:
            return "it closed its connection"
        return f"it was ended by signal {-code}" if code < 0 else f"it ended with code {code}"

    def kill(self) -> None:
        """Kill the process and take its remains away."""
        self.process.kill()
        self.process.wait()


class Isolated:
    """Runs calls of a model in a process of its own; used by one event loop."""

    def __init__(self, start: Callable[[], ModelProcess], *, seconds: float) -> None:
        """Start the process.

        Args:
            start: Starts it, now and again after it ended.
            seconds: A call may take; a process that takes longer is killed.
        Raises:
            DidNotLoad: it does not come up.
        """
        self._start, self._seconds = start, seconds
        self._process: ModelProcess | None = start()
        self._why = ""
        self._pause = FIRST_PAUSE
        self._closed = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._asking: asyncio.Task[None] | None = None  # the loop itself holds tasks weakly

    def run(self, columns: Columns, rows: int, done: Done) -> None:
        """Ask the process for `rows` rows; `done` is told what it says, or `ArmDown`."""
        self._loop = asyncio.get_running_loop()
        if self._process is None:
            done(ArmDown(self._why), 0.0)
            return
        self._asking = self._loop.create_task(self._ask(self._loop, self._process, _framed(columns, rows), done))

    def close(self) -> None:
        """End the process for good; may be called from any thread, and after the event loop has ended."""
        self._closed = True
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            self._close_socket(process)

    async def _ask(self, loop: asyncio.AbstractEventLoop, process: ModelProcess, frame: bytes, done: Done) -> None:
        try:
            async with asyncio.timeout(self._seconds):
                await loop.sock_sendall(process.socket, frame)
                said = _answer(await _received(loop, process.socket))
        except TimeoutError:
            self._fail(process, f"it did not answer within {self._seconds:g} s")
            done(ArmDown(self._why), self._seconds)
        except (OSError, EOFError):
            how = await loop.run_in_executor(None, process.ended)  # which may wait for up to a second
            self._fail(process, f"its process failed: {how}")
            done(ArmDown(self._why), 0.0)
        else:
            self._pause = FIRST_PAUSE
            done(ModelFailedThere(said.error) if said.error else _numbers(said), said.seconds)

    def _fail(self, process: ModelProcess, why: str) -> None:
        """Kill the process, which may hang for ever or has ended, and start it again after a pause."""
        # Its memory takes a while to be given back: whoever is served meanwhile is not to wait for that.
        threading.Thread(target=process.kill, name="isolated", daemon=True).start()
        process.socket.close()
        self._why = why
        if self._closed:
            return
        self._process = None
        logger.error("a version in a process of its own is down: %s; it is started again", why)
        self._again()

    def _close_socket(self, process: ModelProcess) -> None:
        with suppress(RuntimeError):  # the loop has ended
            if self._loop is not None:
                self._loop.call_soon_threadsafe(process.socket.close)
                return
        process.socket.close()

    def _again(self) -> None:
        assert self._loop is not None
        pause, self._pause = self._pause, min(self._pause * 2, LONGEST_PAUSE)
        # A thread of its own, and not one of a pool that the loop waits for at its end: loading may take minutes.
        self._loop.call_later(pause, threading.Thread(target=self._restart, name="isolated", daemon=True).start)

    def _restart(self) -> None:
        started: ModelProcess | None = None
        if not self._closed:
            try:
                started = self._start()
            except Exception as error:  # the artifact store or the system may refuse as well; all of it is tried again
                self._why = str(error)
        with suppress(RuntimeError):  # the loop has ended
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self._restarted, started)
                return
        if started is not None:
            started.kill()
            started.socket.close()

    def _restarted(self, started: ModelProcess | None) -> None:
        if self._closed:
            if started is not None:
                started.kill()
                started.socket.close()
        elif started is None:
            self._again()
        else:
            self._process, self._why = started, ""


async def _received(loop: asyncio.AbstractEventLoop, here: socket.socket) -> bytes:
    """One message.

    Raises:
        EOFError: the other side is gone.
    """
    read = bytearray()
    wanted = _LENGTH.size
    while len(read) < wanted:
        piece = await loop.sock_recv(here, 2**18)
        if not piece:
            raise EOFError
        read += piece
        if wanted == _LENGTH.size and len(read) >= wanted:
            wanted += _LENGTH.unpack_from(read)[0]
    return bytes(memoryview(read)[_LENGTH.size :])


def _framed(columns: Columns, rows: int) -> bytes:
    body = _encode(_Question({name: _kept(column) for name, column in columns.items()}, rows))
    return _LENGTH.pack(len(body)) + body


def _kept(column: NDArray[Any]) -> bytes | list[str | None]:
    return column.tolist() if column.dtype == object else column.astype(np.float64, copy=False).tobytes()
