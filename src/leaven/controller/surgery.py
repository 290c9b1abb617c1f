"""What was done to a champion so that it could go on with features that it did not know?"""

from __future__ import annotations

from typing import Any

import msgspec

from leaven.learners import residual
from leaven.learners.artifact import ModelArtifact
from leaven.learners.growing import proof_in
from leaven.loop import Loop
from leaven.training.encoding import Encoder
from leaven.training.learner import Files
from leaven.training.surgery import Grows, new_classes


def surgery_in(files: Files) -> dict[str, Any]:
    """Return what the lineage of a version with these files has to say of it: `surgery`, the proof, or nothing."""
    proof = proof_in(files)
    return {} if proof is None else {"surgery": msgspec.to_builtins(proof)}


def can_grow(loop: Loop, encoder: Encoder, format: str) -> bool:
    """Whether a champion of this format, with this encoder, could be grown to this loop's features and classes.

    It can where nothing that it takes is gone or has another type, no class has another place, and the learner grows in
    what came.
    """
    now = {(name, kind) for name, kind, _ in loop.schema.features}
    kept = {(name, kind) for name, kind, _ in encoder.features} <= now
    if not kept or format != loop.learner.format or loop.classes[: len(encoder.classes)] != encoder.classes:
        return False
    if len(loop.classes) > len(encoder.classes) and (not encoder.classes or new_classes(loop.learner) is None):
        return False
    same = {(name, kind) for name, kind, _ in encoder.features} == now
    return same or (isinstance(loop.learner, Grows) and loop.learner.grows)


def why_not_corrected(loop: Loop, champion: ModelArtifact) -> str:
    """Return in words why no model of the loop's learner can start from the champion's answers; empty where one can.

    One can where nothing that the champion takes is gone or has another type, whatever learner made it.
    """
    gone = gone_from(loop, champion)
    if gone:
        return f"it takes {', '.join(gone)}, which the loop no longer has"
    return residual.why_not(loop.learner, champion)


def gone_from(loop: Loop, champion: ModelArtifact) -> list[str]:
    """Return what a champion takes and its loop no longer has, each feature with its type."""
    now = {(name, kind) for name, kind, _ in loop.schema.features}
    return [f"{name} ({kind})" for name, kind, _ in champion.encoder.features if (name, kind) not in now]
