"""Will this flight arrive more than 15 minutes late?"""

from leaven import Feature, Label, Loop
from leaven.curation import Recent
from leaven.experiments import Canary, Shadow
from leaven.gates import NotWorse, Sane
from leaven.learners import XGBoost
from leaven.training import Stateless
from leaven.triggers import Every

loop = Loop(
    "flights",
    features=[
        Feature("carrier", "category"),
        Feature("origin", "category"),
        Feature("dest", "category"),
        Feature("distance", "float"),
        Feature("dep_hour", "int"),
        Feature("arr_hour", "int"),
        Feature("weekday", "int"),
        Feature("temp", "float"),
        Feature("dewp", "float"),
        Feature("humid", "float"),
        Feature("wind_speed", "float"),
        Feature("precip", "float"),
        Feature("pressure", "float"),
        Feature("visib", "float"),
    ],
    unit="tailnum",  # one aeroplane always meets the same version
    label=Label("arr_delay", above=15, within="12h"),
    learner=XGBoost(rounds=60, max_depth=4, eta=0.1, min_child_weight=30),
    data=Recent("56d"),
    plan=Stateless(),
    triggers=[Every("7d")],
    gates=[Sane(), NotWorse("log_loss", on="fresh", margin=0.02)],
    rollout=[Shadow("12h"), Canary(0.2, 0.5, each="12h")],
    holdout="2d",
    tick="6h",
)
