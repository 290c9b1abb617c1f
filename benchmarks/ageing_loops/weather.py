"""Will it rain on this day?"""

from leaven import Feature, Label, Loop
from leaven.curation import Recent
from leaven.learners import XGBoost
from leaven.training import Stateless
from leaven.triggers import Every

loop = Loop(
    "weather",
    features=[
        Feature("temperature", "float"),
        Feature("dew_point", "float"),
        Feature("sea_level_pressure", "float"),
        Feature("visibility", "float"),
        Feature("wind_speed_avg", "float"),
        Feature("wind_speed_max", "float"),
        Feature("temperature_max", "float"),
        Feature("temperature_min", "float"),
    ],
    unit="day",
    label=Label("rain", above=0.5, within="1d"),
    learner=XGBoost(rounds=60, max_depth=3, eta=0.1),
    data=Recent("1825d"),
    plan=Stateless(),
    triggers=[Every("7d")],
)
