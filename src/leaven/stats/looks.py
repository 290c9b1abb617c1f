"""How much error may the k-th look at growing evidence spend?"""

from __future__ import annotations


def alpha_at_look(alpha: float, look: int) -> float:
    """Return the share of `alpha` that look number `look` (1, 2, …) may spend.

    The shares of all looks ever add up to `alpha`, so by the union bound the chance that any look errs is at most
    `alpha`, however many there are and however they depend on each other: alpha / (k (k + 1)).
    """
    return alpha / (look * (look + 1))
