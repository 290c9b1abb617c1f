"""Training in a process of its own: what it makes, and how it ends early."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from leaven.errors import BadDefinition
from leaven.learners import Function, XGBoost
from leaven.learners.artifact import ModelArtifact
from leaven.learners.process import (
    TrainingCancelled,
    TrainingFailed,
    TrainingJob,
    TrainingOutOfMemory,
    TrainingTimedOut,
    train_here,
    train_in_process,
)
from leaven.learners.residual import started
from leaven.loopfile import load_loop
from leaven.training.learner import CannotLearn
from tests.learners.builders import a_training_set

LOOP_FILE = '''
import os, tempfile, time
from leaven import Feature, Label, Loop
from leaven.curation import AllHistory
from leaven.learners import XGBoost
from leaven.training import Stateful

class Odd:
    """A learner that does one strange thing."""
    format, stateful = "odd", False
    def __init__(self, what): self.what = what
    def __repr__(self): return f"Odd({self.what!r})"
    def update(self, parent, data, *, seed): raise NotImplementedError
    def fit(self, data, *, seed):
        match self.what:
            case "hang": time.sleep(60)
            case "eat": self.eaten = bytearray(400 * 2**20)
            case "burst": raise ValueError("the frobnicator is empty")
            case "crash": os.abort()
            case "leave a child": os.system("sleep 60 & echo $! > " + os.environ["CHILD_FILE"]); time.sleep(60)
            case "leave a file":
                left = tempfile.mkdtemp()
                open(os.environ["CHILD_FILE"], "w").write(left + chr(10))
                time.sleep(60)
            case "say": print("said by the owner's code")
        return {"pid": str(os.getpid()).encode()}

def a_loop(name, learner):
    types = {"colour": "category", "size": "float", "count": "int", "new": "bool"}
    features = [Feature(*named) for named in types.items()]
    return Loop(name, features=features, unit="user", label=Label("y", above=0, within="1d"), learner=learner,
                data=AllHistory(), plan=Stateful())

loop = a_loop("trees", XGBoost(8, update_rounds=3, threads=1))
for what in ("hang", "eat", "burst", "crash", "leave a child", "leave a file", "say"):
    globals()[what] = a_loop(what.replace(" ", "-"), Odd(what))
'''


@pytest.fixture(scope="module")
def loop_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("loops") / "loops.py"
    path.write_text(LOOP_FILE)
    return path


def a_job(path: Path, name="trees", *, mode="fit", data=None, parent=None, digest=None) -> TrainingJob:
    digest = digest or load_loop(path, name=name).digest
    return TrainingJob(path, name, digest, mode, 5, data or a_training_set(), parent)


def test_a_process_makes_the_same_model_as_this_one_does(loop_file):
    old = a_training_set()
    new = a_training_set(seed=5, parent=old.encoder)
    learner = load_loop(loop_file).learner
    fitted = train_in_process(a_job(loop_file, data=old), seconds=60, memory_mb=2000)
    updated = train_in_process(
        a_job(loop_file, mode="update", data=new, parent=fitted.files), seconds=60, memory_mb=2000
    )
    here = train_here(learner, old, mode="fit", seed=5)
    assert fitted.files == here.files
    assert updated.files == train_here(learner, new, mode="update", parent=here.files, seed=5).files
    assert fitted.format == here.format
    assert fitted.libraries.items() <= here.libraries.items()


def test_what_it_took_is_measured(loop_file):
    outcome = train_in_process(a_job(loop_file), seconds=60, memory_mb=2000)
    assert 0.05 < outcome.cpu_seconds < 60
    assert 0.05 < outcome.wall_seconds < 60
    assert 30 < outcome.peak_memory_mb < 1000
    assert outcome.libraries.keys() >= {"python", "numpy", "xgboost"}


def test_nothing_is_left_on_disk(loop_file, tmp_path):
    train_in_process(a_job(loop_file, "say"), seconds=60, memory_mb=2000, folder=tmp_path)
    with pytest.raises(TrainingFailed):
        train_in_process(a_job(loop_file, "burst"), seconds=60, memory_mb=2000, folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_hang_is_ended_in_time(loop_file):
    began = time.monotonic()
    with pytest.raises(TrainingTimedOut, match=r"'hang' was stopped after 1\.5 s"):
        train_in_process(a_job(loop_file, "hang"), seconds=1.5, memory_mb=2000)
    assert time.monotonic() - began < 45


def test_a_leak_is_ended_before_it_eats_the_machine(loop_file):
    with pytest.raises(TrainingOutOfMemory, match="more than 300 MB"):
        train_in_process(a_job(loop_file, "eat"), seconds=60, memory_mb=300)


def test_the_limit_is_on_what_is_used_so_enough_is_enough(loop_file):
    assert train_in_process(a_job(loop_file, "eat"), seconds=60, memory_mb=900).files.keys() == {"pid"}


def test_an_error_of_the_learner_is_told_in_its_own_words(loop_file):
    with pytest.raises(TrainingFailed, match="the frobnicator is empty") as failure:
        train_in_process(a_job(loop_file, "burst"), seconds=60, memory_mb=2000)
    assert failure.value.exit_code == 1


def test_a_crash_stays_the_processes_own(loop_file):
    with pytest.raises(TrainingFailed, match=f"signal {signal.SIGABRT.value}"):
        train_in_process(a_job(loop_file, "crash"), seconds=60, memory_mb=2000)


def test_a_training_that_is_called_off_is_ended(loop_file):
    asked = iter([False, False, True])
    with pytest.raises(TrainingCancelled):
        train_in_process(a_job(loop_file, "hang"), seconds=60, memory_mb=2000, cancelled=lambda: next(asked))


def test_what_the_learner_started_is_ended_with_it(loop_file, tmp_path, monkeypatch):
    child_file = tmp_path / "child"
    monkeypatch.setenv("CHILD_FILE", str(child_file))
    with pytest.raises(TrainingCancelled):
        train_in_process(
            a_job(loop_file, "leave-a-child"),
            seconds=60,
            memory_mb=2000,
            cancelled=lambda: child_file.exists() and child_file.read_text().endswith("\n"),
        )
    assert ends_soon(int(child_file.read_text()))


def test_what_the_learner_left_among_temporary_files_goes_with_it(loop_file, tmp_path, monkeypatch):
    """A command that was killed, for one, cannot clear up after itself."""
    named, place = tmp_path / "named", tmp_path / "place"
    place.mkdir()
    monkeypatch.setenv("CHILD_FILE", str(named))
    seen = []

    def cancelled():
        if not (named.exists() and named.read_text().endswith("\n")):
            return False
        seen.append(Path(named.read_text().strip()).is_dir())
        return True

    with pytest.raises(TrainingCancelled):
        train_in_process(
            a_job(loop_file, "leave-a-file"), seconds=60, memory_mb=2000, cancelled=cancelled, folder=place
        )
    assert seen == [True]
    assert not Path(named.read_text().strip()).exists()
    assert list(place.iterdir()) == []


def test_a_killed_controller_leaves_no_training_behind(loop_file, tmp_path):
    """A process that trains is killed -9; the training it started must end too."""
    marks = tmp_path / "marks"
    program = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(Path.cwd())!r})
from tests.learners.test_process import a_job
from leaven.learners.process import train_in_process
train_in_process(a_job(Path({str(loop_file)!r}), "leave-a-child"), seconds=60, memory_mb=2000)
"""
    environment = os.environ | {"CHILD_FILE": str(marks)}
    controller = subprocess.Popen([sys.executable, "-c", program], env=environment, cwd=Path(__file__).parents[2])
    try:
        assert until(lambda: marks.exists() and marks.read_text().endswith("\n"))
        child = int(marks.read_text())
        assert alive(child)
    finally:
        controller.kill()
        controller.wait()
    assert ends_soon(child)


def test_refusals_of_the_learner_keep_their_type(loop_file):
    one_class = a_training_set(40, label=np.zeros(40))
    with pytest.raises(CannotLearn, match="all 40 labels are 0"):
        train_in_process(a_job(loop_file, data=one_class), seconds=60, memory_mb=2000)
    with pytest.raises(CannotLearn, match="without a parent"):
        train_here(load_loop(loop_file).learner, a_training_set(), mode="update", seed=1)


def test_a_loop_file_that_was_edited_since_is_refused(loop_file):
    with pytest.raises(BadDefinition, match=r"made for 0123.*Restart the controller"):
        train_in_process(a_job(loop_file, digest="0123"), seconds=60, memory_mb=2000)


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def ends_soon(pid: int) -> bool:
    return until(lambda: not alive(pid))


def until(holds, seconds=60.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if holds():
            return True
        time.sleep(0.05)
    return False


def test_labels_between_0_and_1_reach_the_process_as_what_they_are(loop_file):
    data = a_training_set()
    soft = replace(data, label=np.clip(data.label, 0.1, 0.8), soft=True)
    made = train_in_process(a_job(loop_file, data=soft), seconds=60, memory_mb=2_000)
    assert made.files == train_here(XGBoost(8, update_rounds=3, threads=1), soft, mode="fit", seed=5).files
    with pytest.raises(CannotLearn, match=r"Labels must be 0 or 1"):
        train_here(XGBoost(8), replace(soft, soft=False), mode="fit", seed=5)
    with pytest.raises(CannotLearn, match=r"Labels must lie between 0 and 1"):
        train_here(XGBoost(8), replace(soft, label=soft.label + 0.5), mode="fit", seed=5)


def test_a_parent_of_two_models_reaches_the_process_with_what_it_may_be_made_of(loop_file):
    own, data = Function("tests.learners.owned:train", "tests.learners.owned:load"), a_training_set()
    whole = ModelArtifact(own.format, data.encoder, repr(own), own.fit(data, seed=1))
    trusted, learner = ("tests.learners.owned:load",), XGBoost(8, update_rounds=3, threads=1)
    begun, _ = started(learner, whole, task="binary", new=data.encoder, matrix=data.matrix, trusted=trusted)
    allowed = replace(data, trusted=trusted)
    made = train_in_process(a_job(loop_file, mode="update", data=allowed, parent=begun), seconds=60, memory_mb=2_000)
    assert made.files == train_here(learner, allowed, mode="update", parent=begun, seed=5).files
    assert "base/manifest.json" in made.files
