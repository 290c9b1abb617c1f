"""How models of real libraries are fitted, continued, stored safely, loaded, and trained in a process apart."""

from leaven.learners.als import ALS
from leaven.learners.command import Command
from leaven.learners.embedded import Embedded
from leaven.learners.formats import load
from leaven.learners.function import Function
from leaven.learners.lightgbm import LightGBM
from leaven.learners.parameters import Parameters
from leaven.learners.river import River
from leaven.learners.scikit_learn import ScikitLearn
from leaven.learners.torch import Torch
from leaven.learners.xgboost import XGBoost

__all__ = [
    "ALS",
    "Command",
    "Embedded",
    "Function",
    "LightGBM",
    "Parameters",
    "River",
    "ScikitLearn",
    "Torch",
    "XGBoost",
    "load",
]
