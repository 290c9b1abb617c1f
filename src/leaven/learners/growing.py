"""A loop takes features, or tells classes, that its champion does not know: how does the champion go on?

Before the update, the parent is grown: it is given the new inputs without being trained, and must prove on the newest
rows that it answers as before. The proof is kept beside the new version's files. A parent whose text is not known is
kept whole, and a new model starts from its answers (`leaven.learners.residual`).
"""

from __future__ import annotations

import msgspec

from leaven.learners.artifact import ModelArtifact
from leaven.learners.guards import INPUTS_FILE, Inputs, feature_change, inputs_in
from leaven.learners.residual import started
from leaven.training.encoding import Encoder
from leaven.training.learner import CannotLearn, Files, Learner, TrainingSet
from leaven.training.surgery import Grows, Proof, UnknownText, new_classes, places, probe_rows, proven

PROOF_FILE = "surgery.json"


def grown_parent(learner: Learner, parent: Files, data: TrainingSet) -> tuple[Files, Proof | None]:
    """Return the parent as it takes the features of `data`, and the proof; unchanged where it takes them already.

    It is given the classes of `data` as well, where its learner does that by surgery.

    A parent that takes a feature that is gone or has another type is returned as it is: the update will refuse it.

    Raises:
        CannotLearn: the learner cannot grow this model, nor start from it.
        NotProven: the grown model answers something else.
        ModelDamaged: the parent's description cannot be read.
    """
    if INPUTS_FILE not in parent:
        return parent, None
    inputs = inputs_in(parent, type(learner).__name__)
    now = tuple((name, kind) for name, kind, _ in data.encoder.features)
    classes = data.encoder.classes
    came = len(classes) > len(inputs.classes) > 0 and classes[: len(inputs.classes)] == inputs.classes
    by_surgery = came and new_classes(learner) == "surgery"
    if (inputs.features == now and not by_surgery) or not set(inputs.features) <= set(now):
        return parent, None
    if not isinstance(learner, Grows) or not learner.grows:
        mend = "Fit a version from scratch (plan=Stateless(), or one that rebuilds), or use a learner that grows."
        why = f"{feature_change(inputs.features, now)}, and it cannot grow a model that is fitted"
        raise CannotLearn(type(learner).__name__, why, mend)
    old = _encoder(inputs, data.encoder)
    kept = set(places(type(learner).__name__, old, data.encoder))
    new = [index for index in range(len(now)) if index not in kept]
    probe = probe_rows(data.matrix, new=new)
    try:
        files, proof = learner.grow(parent, old=old, new=data.encoder, probe=probe, trusted=data.trusted)
    except UnknownText as unknown:
        whole = ModelArtifact(learner.format, old, repr(learner), parent)
        return started(
            learner, whole, task=data.schema.task, new=data.encoder, matrix=data.matrix, trusted=data.trusted,
            why=unknown.why,
        )  # fmt: skip
    return files, proven(proof)


def with_proof(files: Files, proof: Proof | None) -> Files:
    """Return the files of a new version with the proof of what was done to its parent."""
    return files if proof is None else {**files, PROOF_FILE: msgspec.json.encode(proof, order="deterministic")}


def proof_in(files: Files) -> Proof | None:
    """Return the proof that a version's files were kept with, or None where nothing was done to its parent."""
    return msgspec.json.decode(files[PROOF_FILE], type=Proof) if PROOF_FILE in files else None


def _encoder(inputs: Inputs, now: Encoder) -> Encoder:
    """What the parent takes: its own features, with as many of today's categories as it knew."""
    required = {name: needed for name, _, needed in now.features}
    features = tuple((name, kind, required[name]) for name, kind in inputs.features)
    categories = {name: now.categories[name][:count] for name, (count, _) in inputs.categories.items()}
    return msgspec.convert({"features": features, "categories": categories, "classes": inputs.classes}, Encoder)
