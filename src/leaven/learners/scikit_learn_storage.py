"""How is a scikit-learn estimator stored without pickle, and what may it be made of?"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from leaven.errors import LeavenError
from leaven.learners.formats import ModelDamaged
from leaven.training.learner import Files

MODEL_FILE = "model.skops"

# Types of scikit-learn, NumPy and SciPy that fitted estimators are made of and that skops does not list as safe by
# itself. They hold numbers, or are functions of numbers; anything else must be named by the owner.
KNOWN_TYPES = frozenset(
    {
        "functools.partial",  # around one of the functions here: what is inside is checked by name as well
        "numpy.dtype",
        "scipy.interpolate._bsplines.BSpline",
        "scipy.sparse._csr.csr_matrix",
        "sklearn._loss.loss.HalfGammaLoss",
        "sklearn._loss.loss.HalfPoissonLoss",
        "sklearn._loss.loss.HalfTweedieLossIdentity",
        "sklearn.calibration._CalibratedClassifier",
        "sklearn.calibration._SigmoidCalibration",
        "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
        "sklearn.feature_selection._mutual_info.mutual_info_classif",
        "sklearn.feature_selection._mutual_info.mutual_info_regression",
        "sklearn.feature_selection._univariate_selection.chi2",
        "sklearn.feature_selection._univariate_selection.f_classif",
        "sklearn.feature_selection._univariate_selection.f_regression",
        "sklearn.gaussian_process._gpc._BinaryGaussianProcessClassifierLaplace",
        "sklearn.gaussian_process.kernels.ConstantKernel",
        "sklearn.gaussian_process.kernels.Product",
        "sklearn.gaussian_process.kernels.RBF",
        "sklearn.gaussian_process.kernels.Sum",
        "sklearn.gaussian_process.kernels.WhiteKernel",
        "sklearn.metrics._dist_metrics.EuclideanDistance64",
        "sklearn.neighbors._ball_tree.BallTree",
        "sklearn.neighbors._kd_tree.KDTree",
        "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
        "sklearn.neural_network._stochastic_optimizers.SGDOptimizer",
        "sklearn.tree._tree.Tree",
        "sklearn.utils.validation.check_array",
    }
)


class UntrustedTypes(LeavenError, ValueError):
    """A stored model is made of types that nobody named as safe to load."""

    def __init__(self, types: Collection[str]) -> None:
        super().__init__(sorted(types))
        self.types = sorted(types)

    def __str__(self) -> str:
        return (
            f"the model is made of {', '.join(self.types)}, which nobody named as safe to load. If the code is yours, "
            "name each in ScikitLearn(…, trusted=[…]) and wherever the model is loaded."
        )


def stored(model: Any, trusted: Collection[str]) -> bytes:
    """Return a fitted estimator as a skops archive.

    Raises:
        UntrustedTypes: it contains types that are neither known nor in `trusted`.
    """
    import skops.io

    content: bytes = skops.io.dumps(model)
    refused = _untrusted(content, trusted)
    if refused:
        raise UntrustedTypes(refused)
    return content


def estimator_in(files: Files, trusted: Collection[str]) -> Any:
    """Return the fitted estimator.

    Raises:
        UntrustedTypes: it contains types that are neither known nor in `trusted`; nothing of it was made.
        ModelDamaged: the files are incomplete or unreadable.
    """
    import skops.io

    if MODEL_FILE not in files:
        raise ModelDamaged("skops", f"there is no {MODEL_FILE}")
    stored = bytes(files[MODEL_FILE])  # skops unpacks from bytes only
    refused = _untrusted(stored, trusted)
    if refused:
        raise UntrustedTypes(refused)
    return skops.io.loads(stored, trusted=sorted({*KNOWN_TYPES, *trusted}))


def _untrusted(stored: bytes, trusted: Collection[str]) -> set[str]:
    import skops.io

    try:
        found = skops.io.get_untrusted_types(data=stored)
    except Exception as error:  # skops lets zip, JSON and key errors of a damaged archive through as they come
        raise ModelDamaged("skops", f"{type(error).__name__}: {first_line(error)}") from error
    return set(found) - set(KNOWN_TYPES) - set(trusted)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, or its type where it has none."""
    lines = str(error).splitlines()
    return (lines[0] if lines else type(error).__name__).rstrip(".")
