"""How is a model trained so that a hang, a leak or a crash of the learner stays its own?"""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import numpy as np

from leaven.errors import BadDefinition, LeavenError
from leaven.learners.fitting import (
    DATA_FILE,
    JOB_FILE,
    MODEL_FOLDER,
    OUT_OF_MEMORY,
    PARENT_FOLDER,
    RESULT_FILE,
    TEXTS_FILE,
    JobSheet,
    ResultSheet,
    fit_or_update,
    libraries,
    read_folder,
    write_folder,
)
from leaven.settings import process_environment
from leaven.training.learner import CannotLearn, Files, Learner, TrainingSet
from leaven.training.plans import Mode

_POLL_SECONDS = 0.02
_ASK_SECONDS = 0.25  # how often `cancelled` is asked: it may read the control database
_LAST_LINES = 20
_NO_MEMORY = ("MemoryError", "bad_alloc", "Cannot allocate memory", "Memory allocation")


class TrainingFailed(LeavenError, RuntimeError):
    """The training process ended with an error of its own."""

    def __init__(self, loop: str, exit_code: int, last_lines: str) -> None:
        super().__init__(loop, exit_code, last_lines)
        self.loop, self.exit_code, self.last_lines = loop, exit_code, last_lines

    def __str__(self) -> str:
        how = f"signal {-self.exit_code}" if self.exit_code < 0 else f"exit code {self.exit_code}"
        said = f" Its last words:\n{self.last_lines}" if self.last_lines else " It said nothing."
        return f"training of loop {self.loop!r} failed ({how}). Mend the learner or its data, then retrain.{said}"


class TrainingTimedOut(LeavenError, TimeoutError):
    """Training took longer than it may."""

    def __init__(self, loop: str, seconds: float) -> None:
        super().__init__(loop, seconds)
        self.loop, self.seconds = loop, seconds

    def __str__(self) -> str:
        return (
            f"training of loop {self.loop!r} was stopped after {self.seconds:g} s. "
            "Allow more time, or make the learner or its data smaller."
        )


class TrainingOutOfMemory(LeavenError, MemoryError):
    """Training needed more memory than it may have."""

    def __init__(self, loop: str, memory_mb: int) -> None:
        super().__init__(loop, memory_mb)
        self.loop, self.memory_mb = loop, memory_mb

    def __str__(self) -> str:
        return (
            f"training of loop {self.loop!r} needed more than {self.memory_mb} MB. "
            "Allow more memory, or train on fewer rows."
        )


class TrainingCancelled(LeavenError, RuntimeError):
    """Somebody called the training off."""

    def __init__(self, loop: str) -> None:
        super().__init__(loop)
        self.loop = loop

    def __str__(self) -> str:
        return f"training of loop {self.loop!r} was cancelled. Nothing of it was kept; retrain when it is wanted."


@dataclass(frozen=True, slots=True)
class TrainingJob:
    """One model to be made: whose learner, from what, onwards from which parent."""

    loop_file: Path
    loop: str
    digest: str  # of the loop's definition; the process refuses a file that says something else by now
    mode: Mode
    seed: int
    data: TrainingSet
    parent: Files | None = None


@dataclass(frozen=True, slots=True)
class TrainingOutcome:
    """A model, and what it took to make it."""

    format: str
    files: Files
    libraries: Mapping[str, str]
    cpu_seconds: float
    wall_seconds: float
    peak_memory_mb: float


def train_in_process(
    job: TrainingJob,
    *,
    seconds: float,
    memory_mb: int,
    cancelled: Callable[[], bool] = lambda: False,
    folder: Path | None = None,
) -> TrainingOutcome:
    """Make the model in a process of its own, which ends with this one, and return it with what it took.

    Args:
        job: What to make.
        seconds: Wall time after which the process is killed.
        memory_mb: Private memory that the process may hold, including Python and its libraries (about 250 MB).
        cancelled: Asked a few times a second; True kills the process.
        folder: Where the job's temporary folder is made; the system's place for such by default.

    Raises:
        CannotLearn: the learner refuses the data or the parent.
        BadDefinition: the loop file no longer says what the job was made for.
        TrainingTimedOut, TrainingOutOfMemory, TrainingCancelled, TrainingFailed: it ended early.
    """
    with TemporaryDirectory(prefix="leaven-training-", dir=folder) as name:
        place = Path(name)
        _write_job(place, job)
        began = time.monotonic()
        with (place / "output.txt").open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "leaven.learners.fitting", str(place), str(memory_mb)],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                env=process_environment() | {"TMPDIR": name},  # what it leaves behind goes with the folder
                start_new_session=True,
            )
            try:
                used = _wait(process, job.loop, seconds=seconds, cancelled=cancelled)
            finally:
                _end(process)
        sheet = _result(place, process.returncode, job.loop, memory_mb)
        return TrainingOutcome(
            sheet.format,
            read_folder(place / MODEL_FOLDER),
            sheet.libraries,
            cpu_seconds=used.ru_utime + used.ru_stime,
            wall_seconds=time.monotonic() - began,
            peak_memory_mb=used.ru_maxrss / 1024,
        )


def train_here(
    learner: Learner, data: TrainingSet, *, mode: Mode, parent: Files | None = None, seed: int
) -> TrainingOutcome:
    """Make the model in this process, without limits, and return it with what it took (as `leaven replay` does).

    A library that the learner imports only when it trains is imported before, so that no model is charged for it.

    Raises:
        CannotLearn: the learner refuses the data or the parent.
    """
    getattr(learner, "import_library", lambda: None)()
    began, cpu = time.monotonic(), time.process_time()
    files = fit_or_update(learner, data, mode=mode, parent=parent, seed=seed)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return TrainingOutcome(
        learner.format, files, libraries(), time.process_time() - cpu, time.monotonic() - began, peak
    )


def _write_job(place: Path, job: TrainingJob) -> None:
    file = str(job.loop_file.absolute())
    sheet = JobSheet(file, job.loop, job.digest, job.mode, job.seed, job.data.encoder, job.data.soft, job.data.trusted)
    (place / JOB_FILE).write_bytes(msgspec.json.encode(sheet))
    np.savez(place / DATA_FILE, matrix=job.data.matrix, label=job.data.label)
    texts = {name: column.tolist() for name, column in job.data.texts.items()}
    (place / TEXTS_FILE).write_bytes(msgspec.msgpack.encode(texts))
    if job.parent is not None:
        write_folder(place / PARENT_FOLDER, job.parent)


def _wait(
    process: subprocess.Popen[bytes], loop: str, *, seconds: float, cancelled: Callable[[], bool]
) -> resource.struct_rusage:
    """Wait for the end of the process and return what it used."""
    deadline, ask_at = time.monotonic() + seconds, 0.0
    while True:
        # wait4 and not Popen.wait: only it tells what this one child used.
        pid, status, used = os.wait4(process.pid, os.WNOHANG)
        if pid:
            process.returncode = os.waitstatus_to_exitcode(status)
            return used
        now = time.monotonic()
        if now >= deadline:
            raise TrainingTimedOut(loop, seconds)
        if now >= ask_at:
            if cancelled():
                raise TrainingCancelled(loop)
            ask_at = now + _ASK_SECONDS
        time.sleep(_POLL_SECONDS)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill the process and all that it started, if any are left."""
    with suppress(ProcessLookupError):  # ended by itself, and left nobody behind
        os.killpg(process.pid, signal.SIGKILL)
    if process.returncode is None:
        process.wait()
    if process.stdin is not None:
        process.stdin.close()


def _result(place: Path, exit_code: int, loop: str, memory_mb: int) -> ResultSheet:
    path = place / RESULT_FILE
    if exit_code != 0 or not path.exists():
        lines = (place / "output.txt").read_text(errors="replace").splitlines()
        last = "\n".join(lines[-_LAST_LINES:])
        killed = exit_code == -signal.SIGKILL  # not by us, so by the kernel for want of memory
        if exit_code == OUT_OF_MEMORY or killed or any(word in last for word in _NO_MEMORY):
            raise TrainingOutOfMemory(loop, memory_mb)
        raise TrainingFailed(loop, exit_code, last)
    sheet = msgspec.json.decode(path.read_bytes(), type=ResultSheet)
    if sheet.error == "cannot learn":
        raise CannotLearn(*sheet.facts)
    if sheet.error == "bad definition":
        raise BadDefinition(*sheet.facts)
    if sheet.error == "refused":
        raise TrainingFailed(loop, exit_code, sheet.facts[0])
    return sheet
