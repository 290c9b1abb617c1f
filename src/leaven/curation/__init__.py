"""Which examples a refresh learns from: windows, samples, and the exact, replayable snapshot of them."""

from leaven.curation.windows import AllHistory, Recent, Sample

__all__ = ["AllHistory", "Recent", "Sample"]
