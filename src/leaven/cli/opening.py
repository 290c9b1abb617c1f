"""How does a process of the gateway get at a version's model?"""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

import msgspec
from numpy.typing import NDArray

from leaven.gateway.answering import Answers
from leaven.gateway.handover import encode_settings
from leaven.gateway.isolation import ModelProcess
from leaven.gateway.opening import Opener
from leaven.registry.artifacts import ArtifactStore
from leaven.settings import Settings


def load_artifact_of(settings: Settings, digest: str) -> Answers:
    """Return the model of an artifact; its library is imported only now."""
    from leaven.learners.artifact import load_artifact

    return load_artifact(ArtifactStore(settings.artifacts).get(digest), trusted=settings.trusted_types)


def opener_for(settings: Settings, *, timer: Any, threads: Any) -> Opener:
    """Return what opens versions in a gateway worker."""
    return Opener(
        partial(load_artifact_of, settings),
        partial(_start, settings),
        seconds=settings.challenger_seconds,
        timer=timer,
        threads=threads,
    )


def _start(settings: Settings, digest: str, row: dict[str, NDArray[Any]]) -> ModelProcess:
    hello = msgspec.msgpack.encode({"artifact": digest, "settings": encode_settings(settings)})
    command = (sys.executable, "-m", "leaven.cli.model_process")
    return ModelProcess(command, hello, within=settings.load_seconds, warm_with=row)
