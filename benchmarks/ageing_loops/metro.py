"""How many vehicles pass in this hour?"""

from leaven import Feature, Label, Loop
from leaven.curation import Recent
from leaven.learners import XGBoost
from leaven.training import Stateless
from leaven.triggers import Every

loop = Loop(
    "metro",
    features=[
        Feature("hour", "int"),
        Feature("weekday", "int"),
        Feature("temp", "float"),
        Feature("rain_1h", "float"),
        Feature("snow_1h", "float"),
        Feature("clouds_all", "int"),
        Feature("weather_main", "category"),
    ],
    unit="hour",
    label=Label("traffic_volume", within="1h"),
    learner=XGBoost(rounds=100, max_depth=5, eta=0.1),
    data=Recent("364d"),
    plan=Stateless(),
    triggers=[Every("7d")],
)
