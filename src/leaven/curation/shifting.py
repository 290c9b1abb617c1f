"""What would the probabilities be, had the rows not been drawn by their label?"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from leaven.curation.snapshot import Snapshot, read_snapshot, unsampled
from leaven.errors import BadDefinition
from leaven.events.labels import LabelRule
from leaven.events.source import ExampleSource


def unshifted(probability: ArrayLike, *, kept: float) -> NDArray[np.float64]:
    """Return probabilities as they are among all rows, from those of a model that learnt from a sample by class.

    Args:
        probability: What the model answers, in [0, 1].
        kept: Chance of a row with label 0 to be in the sample, over that of a row with label 1 (`kept_zeros`).
            Positive; 1 changes nothing, less than 1 says that zeros were left out.
    Source:
        He et al., "Practical lessons from predicting clicks on ads at Facebook" (2014): q = p / (p + (1 - p) / w).
    """
    if not kept > 0:
        raise BadDefinition("kept", f"{kept!r} is no chance over another", "Give a positive number.")
    asked = np.asarray(probability, dtype=np.float64)
    return np.asarray(asked / (asked + (1 - asked) / kept))


def kept_zeros(snapshot: Snapshot, source: ExampleSource, rule: LabelRule) -> float:
    """Return how likely a row with label 0 was to be kept, over one with label 1: what `unshifted` takes.

    Both are shares of all mature rows in the snapshot's stretches, which are read once more; 1 where none was drawn.

    Raises:
        BadDefinition: the label is not 0 or 1, or one of the two is not among the rows.
    """
    shares = []
    whole = read_snapshot(unsampled(snapshot), source, rule).labels.value
    sampled = read_snapshot(snapshot, source, rule).labels.value
    for label in (0, 1):
        there, kept = int((whole == label).sum()), int((sampled == label).sum())
        if not there or not kept or not np.isin(whole, (0, 1)).all():
            what = f"a snapshot of {snapshot.loop!r} keeps {kept} of {there} rows with label {label}"
            raise BadDefinition("kept_zeros", what, "It needs rows of both classes, 0 and 1, and no others.")
        shares.append(kept / there)
    return shares[0] / shares[1]
