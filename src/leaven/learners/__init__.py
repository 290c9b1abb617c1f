"""How models of real libraries are fitted, continued, stored safely, loaded, and trained in a process apart."""

from leaven.learners.formats import load
from leaven.learners.parameters import Parameters
from leaven.learners.scikit_learn import ScikitLearn
from leaven.learners.xgboost import XGBoost

__all__ = ["Parameters", "ScikitLearn", "XGBoost", "load"]
