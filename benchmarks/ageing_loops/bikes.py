"""How many bicycles are rented in this hour?"""

from leaven import Feature, Label, Loop
from leaven.curation import Recent
from leaven.learners import XGBoost
from leaven.training import Stateless
from leaven.triggers import Every

loop = Loop(
    "bikes",
    features=[
        Feature("hr", "int"),
        Feature("weekday", "int"),
        Feature("workingday", "int"),
        Feature("holiday", "int"),
        Feature("weathersit", "int"),
        Feature("temp", "float"),
        Feature("atemp", "float"),
        Feature("hum", "float"),
        Feature("windspeed", "float"),
    ],
    unit="hour",
    label=Label("cnt", within="1h"),
    learner=XGBoost(rounds=100, max_depth=4, eta=0.1),
    data=Recent("112d"),
    plan=Stateless(),
    triggers=[Every("7d")],
)
