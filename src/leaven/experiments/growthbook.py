"""Which bucket does GrowthBook put a unit in?

For teams that move: their running experiments keep their units. What is compatible is version 2 of the hash, with
version 1 for namespaces, as the JavaScript SDK computes them; its published cases are among the tests.
"""

from __future__ import annotations

from bisect import bisect_left

BUCKETS = 10_000  # of an experiment
NAMESPACE_BUCKETS = 1_000


def bucket(unit: str, *, seed: str) -> int:
    """Return the bucket, 0 to 9,999, of `unit` in the experiment with this seed (its key, where it has none)."""
    return _fnv1a(str(_fnv1a(seed + unit))) % BUCKETS


def namespace_bucket(unit: str, *, namespace: str) -> int:
    """Return the bucket, 0 to 999, of `unit` in a namespace."""
    return bucket_v1(unit, seed=f"__{namespace}")


def bucket_v1(unit: str, *, seed: str) -> int:
    """Return the bucket, 0 to 999, by version 1 of the hash, which is biased across experiments."""
    return _fnv1a(unit + seed) % NAMESPACE_BUCKETS


def first_bucket(edge: float, *, buckets: int = BUCKETS) -> int:
    """Return the first bucket at or above `edge`, a share: the SDK compares the quotients, not the buckets."""
    return bisect_left(range(buckets + 1), edge, key=lambda bucket: bucket / buckets)


def _fnv1a(text: str) -> int:
    """FNV-1a, 32 bits, over UTF-16 code units: each is one step, where the published algorithm takes bytes."""
    units = text.encode("utf-16-le", "surrogatepass")
    hashed = 0x811C9DC5
    for low, high in zip(units[::2], units[1::2], strict=True):
        hashed = (hashed ^ (low | high << 8)) * 0x01000193 & 0xFFFFFFFF
    return hashed
