"""Will this flight arrive more than 15 minutes late? The short version: every fourth flight of fourteen weeks."""

from sklearn.ensemble import HistGradientBoostingClassifier

from leaven import Feature, Label, Loop
from leaven.curation import Recent
from leaven.experiments import Canary, Shadow
from leaven.gates import NotWorse, Sane
from leaven.learners import ScikitLearn
from leaven.training import Stateless
from leaven.triggers import Every

loop = Loop(
    "flights",
    features=[
        Feature("carrier", "category"),
        Feature("origin", "category"),
        Feature("dest", "category"),
        Feature("dep_hour", "int"),
        Feature("arr_hour", "int"),
        Feature("temp", "float"),
        Feature("humid", "float"),
        Feature("wind_speed", "float"),
        Feature("precip", "float"),
        Feature("visib", "float"),
    ],
    unit="tailnum",
    label=Label("arr_delay", above=15, within="12h"),
    learner=ScikitLearn(HistGradientBoostingClassifier(max_iter=30, max_depth=4, learning_rate=0.15)),
    data=Recent("35d"),
    plan=Stateless(),
    triggers=[Every("7d")],
    gates=[Sane(), NotWorse("log_loss", on="fresh", margin=0.05)],
    rollout=[Shadow("12h", margin=0.1, min_units=50), Canary(0.5, each="12h", margin=0.5, min_units=30)],
    holdout="3d",
    tick="12h",
)
