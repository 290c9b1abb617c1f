"""How does a process of the gateway get at a version's model?"""

from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial
from typing import Any

import msgspec
from numpy.typing import NDArray

from leaven.endpoints.asking import Asking
from leaven.endpoints.description import FILE, MOST_BYTES, decoded
from leaven.experiments import parameters
from leaven.gateway.answering import Answers
from leaven.gateway.handover import encode_settings
from leaven.gateway.isolation import ModelProcess
from leaven.gateway.opening import Opener
from leaven.gateway.parameters import ParametersArm
from leaven.registry.artifacts import ArtifactStore
from leaven.registry.remote_artifacts import artifacts_at
from leaven.settings import Settings, variable


def load_artifact_of(settings: Settings, digest: str) -> Answers:
    """Return the model of an artifact; its library is imported only now."""
    from leaven.learners.artifact import load_artifact

    return load_artifact(_artifacts(settings).get(digest), trusted=settings.trusted_types)


def _artifacts(settings: Settings) -> ArtifactStore:
    return artifacts_at(settings.artifacts, copies=settings.run / "artifacts")


def described_by(settings: Settings, digest: str, *, timer: Callable[[], float]) -> Asking | ParametersArm | None:
    """Return what asks the endpoint that an artifact describes, or the parameters in it; None where it is a model's."""
    store = _artifacts(settings)
    path = store.path(digest)
    if path.exists() and path.stat().st_size > MOST_BYTES:  # a model's may be large, and is read by who loads it
        return None
    files = store.get(digest)
    if parameters.FILE in files:
        _, written = parameters.decoded(files)
        return ParametersArm(written)
    return Asking(decoded(files), variable=variable, timer=timer) if FILE in files else None


def opener_for(
    settings: Settings, *, timer: Callable[[], float], clock: Callable[[], int], threads: Executor
) -> Opener:
    """Return what opens versions in a gateway worker."""
    return Opener(
        partial(load_artifact_of, settings),
        partial(_start, settings),
        partial(described_by, settings, timer=timer),
        seconds=settings.challenger_seconds,
        timer=timer,
        clock=clock,
        threads=threads,
    )


def _start(settings: Settings, digest: str, row: dict[str, NDArray[Any]], gives_way: bool) -> ModelProcess:
    hello = msgspec.msgpack.encode({"artifact": digest, "settings": encode_settings(settings), "aside": gives_way})
    command = (sys.executable, "-m", "leaven.cli.model_process")
    return ModelProcess(command, hello, within=settings.load_seconds, warm_with=row)
