"""Will this flight arrive more than 15 minutes late?"""

from leaven import Feature, Label, Loop
from leaven.curation import Recent
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
        Feature("sched_dep_time", "int"),
        Feature("sched_arr_time", "int"),
        Feature("temp", "float"),
        Feature("dewp", "float"),
        Feature("humid", "float"),
        Feature("wind_speed", "float"),
        Feature("precip", "float"),
        Feature("pressure", "float"),
        Feature("visib", "float"),
    ],
    unit="tailnum",
    label=Label("arr_delay", above=15, within="36h"),
    learner=XGBoost(rounds=60, max_depth=4, eta=0.1, min_child_weight=30),
    data=Recent("28d"),
    plan=Stateless(),
    triggers=[Every("7d")],
)
