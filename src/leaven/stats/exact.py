"""Does one arm fail more often than the other?"""

from __future__ import annotations


def more_failures_p_value(control: tuple[int, int], treatment: tuple[int, int]) -> float:
    """Return how likely so many failures in the treatment, or more, are if both arms fail equally often.

    Args:
        control: Failures and trials of the control, `0 <= failures <= trials`.
        treatment: Failures and trials of the treatment.
    Returns:
        The one-sided p-value, in (0, 1]; 1 where an arm is empty.
    Source:
        Fisher's exact test: given all failures, those of the treatment are hypergeometric.
    """
    (control_failures, control_trials), (failures, trials) = control, treatment
    if not trials or not control_trials or not failures:
        return 1.0
    from scipy.stats import hypergeom

    everyone, failed = control_trials + trials, control_failures + failures
    return float(min(1.0, hypergeom.sf(failures - 1, everyone, failed, trials)))
