"""What does the controller work with?

The same steps run live and in a replay; only these parts differ: the log they read, the database, how a training run is
carried out.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

from sqlalchemy import Connection

from leaven.endpoints.description import FILE
from leaven.endpoints.model import load_endpoint
from leaven.events.source import ExampleSource
from leaven.gateway.answering import Answers
from leaven.learners.artifact import load_artifact
from leaven.learners.process import TrainingOutcome
from leaven.loop import Loop
from leaven.registry.versions import version
from leaven.storage.control.database import ControlDatabase
from leaven.training.costs import Power
from leaven.training.learner import Files, TrainingSet
from leaven.training.plans import Mode


class Artifacts(Protocol):
    """Keeps model files by the digest of their content."""

    def put(self, files: Files) -> str:
        """Keep `files` and return their digest."""
        ...

    def get(self, digest: str) -> Files:
        """Return the files kept under `digest`."""
        ...


class Train(Protocol):
    """Carries out one training run."""

    def __call__(
        self, loop: Loop, data: TrainingSet, *, mode: Mode, parent: Files | None, cancelled: Callable[[], bool]
    ) -> TrainingOutcome:
        """Return the fitted files and what the run cost."""
        ...


@dataclass
class Parts:
    """Everything the steps and the reconciler need."""

    database: ControlDatabase
    artifacts: Artifacts
    loop: Callable[[str], Loop]
    source: Callable[[str], ExampleSource]
    train: Train
    fence: Callable[[Connection], None]  # raises where another controller has taken over
    power: Power | None = None  # what the owner declares of the machine, for estimates of energy
    trusted: tuple[str, ...] = ()  # types of the owner's own that a model may be made of
    _models: dict[str, Answers] = field(default_factory=dict)

    def write(self) -> AbstractContextManager[Connection]:
        """Return a write transaction; the caller calls `fence` in it before it changes anything."""
        return self.database.write()

    def model(self, loop: str, number: int) -> Answers:
        """Return what answers for a version, a model or an endpoint, loaded once; the few latest are kept."""
        with self.database.read() as connection:
            digest = version(connection, loop, number).artifact
        if digest not in self._models:
            while len(self._models) >= 6:
                self._models.pop(next(iter(self._models)))
            files = self.artifacts.get(digest)
            self._models[digest] = load_endpoint(files) if FILE in files else load_artifact(files, trusted=self.trusted)
        return self._models[digest]
