"""Which examples a refresh learns from, and which are worth a label: windows, samples, the exact snapshot, queries."""

from leaven.curation.sample import Sample
from leaven.curation.shifting import kept_zeros, unshifted
from leaven.curation.windows import AllHistory, Recent

__all__ = ["AllHistory", "Recent", "Sample", "kept_zeros", "unshifted"]
