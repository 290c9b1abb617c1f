"""How many cars pass this hour? (metro_traffic: a control, on which staleness hardly hurts)"""

from leaven import Feature, Label, Loop
from leaven.curation import AllHistory
from leaven.gates import NotWorse, Sane
from leaven.learners import XGBoost
from leaven.training import Hybrid
from leaven.triggers import Drops

loop = Loop(
    "metro",
    features=[
        Feature("hour", "int"),
        Feature("weekday", "int"),
        Feature("holiday", "category"),
        Feature("temp", "float"),
        Feature("rain_1h", "float"),
        Feature("snow_1h", "float"),
        Feature("clouds_all", "float"),
        Feature("weather_main", "category"),
    ],
    unit="request",
    label=Label("traffic_volume", within="1h"),  # counted by the end of the hour
    learner=XGBoost(rounds=100, max_depth=6, eta=0.1, update_rounds=10, threads=1),
    data=AllHistory(),
    plan=Hybrid(rebuild="365d", replay=1.0),
    triggers=[Drops("absolute_error", by=20.0, over="28d")],  # cars; a refresh that gains less is not worth one
    gates=[
        Sane(),
        NotWorse("absolute_error", on="fresh", margin=0.0),
        NotWorse("absolute_error", on="past", margin=0.05),
    ],
    holdout="28d",
    tick="1d",
)
