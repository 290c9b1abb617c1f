"""Will it rain? (weather_noaa: a control, on which a refresh gains little and can lose)"""

from leaven import Feature, Label, Loop
from leaven.curation import AllHistory
from leaven.gates import NotWorse, Sane
from leaven.learners import XGBoost
from leaven.training import Hybrid
from leaven.triggers import Drops

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
    unit="request",
    label=Label("rain", above=0.5, within="1d"),
    learner=XGBoost(rounds=60, max_depth=4, eta=0.1, min_child_weight=5, update_rounds=10, threads=1),
    data=AllHistory(),
    plan=Hybrid(rebuild="1826d", replay=1.0),
    triggers=[Drops("log_loss", by=0.02, over="180d")],
    gates=[Sane(), NotWorse("log_loss", on="fresh", margin=0.0), NotWorse("log_loss", on="past", margin=0.05)],
    holdout="365d",
    tick="7d",
)
