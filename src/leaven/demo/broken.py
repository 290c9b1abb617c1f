"""What does a version look like that somebody broke?

The demo's accident: a "clean-up" of the training code turned the label round, so the model is sure that late flights
are on time. It loads, it answers, its answers are probabilities. It is registered by hand and sent straight to the
canary, past the gates and the shadow, as people do when they are in a hurry.
"""

from __future__ import annotations

from dataclasses import replace

import msgspec

from leaven.app import App
from leaven.curation.snapshot import Snapshot, read_snapshot
from leaven.learners.artifact import ModelArtifact
from leaven.learners.process import train_here
from leaven.loop import Loop
from leaven.registry import snapshots, versions
from leaven.training.learner import training_set


def register_broken(app: App, loop: Loop, like: int) -> int:
    """Train a version on the snapshot of version `like` with the label turned round; return its number."""
    with app.database.read() as connection:
        model = versions.version(connection, loop.name, like)
        assert model.snapshot is not None
        definition = msgspec.convert(snapshots.snapshot(connection, model.snapshot).definition, Snapshot)
    examples = read_snapshot(definition, app.source(loop.name), loop.label)
    data = training_set(loop.schema, examples.predictions.features, examples.labels.value)
    outcome = train_here(loop.learner, replace(data, label=1 - data.label), mode="fit", seed=loop.seed)
    made = ModelArtifact(outcome.format, data.encoder, repr(loop.learner), outcome.files, outcome.libraries)
    digest = app.artifacts.put(made.to_files())
    with app.database.write() as connection:
        return versions.register(
            connection, loop.name, artifact=digest, format=outcome.format, mode="fit", definition_digest=loop.digest,
            at=app.clock.micros(), snapshot=model.snapshot, lineage={"note": "the label was turned round by mistake"},
        )  # fmt: skip
