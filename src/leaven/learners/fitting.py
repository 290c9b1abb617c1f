"""How is one model made, here or as the program of a process of its own?

`python -m leaven.learners.fitting FOLDER MEGABYTES` reads a job from the folder, makes the model, and writes it back.
"""

from __future__ import annotations

import os
import platform
import signal
import sys
import threading
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np

from leaven.errors import BadDefinition, LeavenError
from leaven.learners.growing import grown_parent, with_proof
from leaven.settings import limit_memory
from leaven.training.encoding import Encoder, Texts
from leaven.training.learner import CannotLearn, Files, Learner, TrainingSet
from leaven.training.plans import Mode

JOB_FILE, DATA_FILE, TEXTS_FILE, RESULT_FILE = "job.json", "data.npz", "texts.msgpack", "result.json"
PARENT_FOLDER, MODEL_FOLDER = "parent", "model"
_LIBRARIES = ("numpy", "scipy", "sklearn", "skops", "xgboost", "lightgbm", "river", "implicit", "torch", "tokenizers")
OUT_OF_MEMORY = 71  # exit code; the system's own for a missing resource


class JobSheet(msgspec.Struct, frozen=True):
    """What a fitting process is asked to do, beside the rows in `data.npz` and the parent's files."""

    loop_file: str
    loop: str
    digest: str  # of the definition that the job was made for
    mode: Mode
    seed: int
    encoder: Encoder
    soft: bool = False  # whether labels of a binary task may lie between 0 and 1
    trusted: tuple[str, ...] = ()  # types of the owner's own that a model under the parent may be made of


class ResultSheet(msgspec.Struct, frozen=True):
    """How it went: the names of the model's files, or an error and its facts."""

    format: str = ""
    files: tuple[str, ...] = ()
    libraries: dict[str, str] = {}  # msgspec copies the default
    error: Literal["", "cannot learn", "bad definition", "refused"] = ""
    facts: tuple[str, ...] = ()


def fit_or_update(learner: Learner, data: TrainingSet, *, mode: Mode, parent: Files | None, seed: int) -> Files:
    """Return the files of a model fitted to `data`, or of the parent continued on it.

    A parent that does not know all features of `data` is grown first; the proof of it is among the files.

    Raises:
        CannotLearn: the learner refuses the data or the parent, or an update has no parent.
        NotProven: the grown parent answers something else.
    """
    if mode == "fit":
        return learner.fit(data, seed=seed)
    if parent is None:
        raise CannotLearn(type(learner).__name__, "an update was asked for without a parent", "Fit a version first.")
    grown, proof = grown_parent(learner, parent, data)
    return with_proof(learner.update(grown, data, seed=seed), proof)


def libraries() -> dict[str, str]:
    """Return the versions of Python and of the learning libraries that this process has loaded."""
    loaded = [name for name in _LIBRARIES if name in sys.modules]
    return {"python": platform.python_version()} | {name: str(sys.modules[name].__version__) for name in loaded}


def main(arguments: list[str]) -> int:
    """Do the job in the folder that is the first argument, with the megabytes of memory that are the second."""
    folder = Path(arguments[0])
    limit_memory(int(arguments[1]))
    _end_with_parent()
    try:
        result = _done(folder)
    except MemoryError:
        return OUT_OF_MEMORY
    except CannotLearn as error:
        result = ResultSheet(error="cannot learn", facts=(error.learner, error.why, error.mend))
    except BadDefinition as error:
        result = ResultSheet(error="bad definition", facts=(error.where, error.what, error.mend))
    except LeavenError as error:
        result = ResultSheet(error="refused", facts=(str(error),))
    (folder / RESULT_FILE).write_bytes(msgspec.json.encode(result))
    return 0


def _done(folder: Path) -> ResultSheet:
    from leaven.loopfile import load_loop

    sheet = msgspec.json.decode((folder / JOB_FILE).read_bytes(), type=JobSheet)
    loop = load_loop(Path(sheet.loop_file), name=sheet.loop)
    if loop.digest != sheet.digest:
        what = f"the definition is {loop.digest} now, the job was made for {sheet.digest}"
        raise BadDefinition(sheet.loop_file, what, "Restart the controller, so that it runs the file as it is now.")
    with np.load(folder / DATA_FILE, allow_pickle=False) as rows:
        matrix, label = rows["matrix"], rows["label"]
    texts = read_texts(folder)
    data = TrainingSet(matrix, label, sheet.encoder, loop.schema, sheet.soft, texts, sheet.trusted)
    parent = read_folder(folder / PARENT_FOLDER) if sheet.mode == "update" else None
    files = fit_or_update(loop.learner, data, mode=sheet.mode, parent=parent, seed=sheet.seed)
    write_folder(folder / MODEL_FOLDER, files)
    return ResultSheet(loop.learner.format, tuple(sorted(files)), libraries())


def read_texts(folder: Path) -> Texts:
    """Return the text features of the rows in the folder."""
    texts: dict[str, list[str]] = msgspec.msgpack.decode((folder / TEXTS_FILE).read_bytes())
    return {name: np.array(column, dtype=object) for name, column in texts.items()}


def write_folder(folder: Path, files: Files) -> None:
    """Write `files` into a new folder, and into folders below it as their names say."""
    folder.mkdir()
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def read_folder(folder: Path) -> Files:
    """Return the files of a folder, and of those below it, by name; none if there is no folder."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def _end_with_parent() -> None:
    """A killed controller must not leave a training behind: its end closes our standard input."""

    def watch() -> None:
        os.read(0, 1)  # not sys.stdin: its lock, held for ever here, would abort the interpreter's own end
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
