"""How many bicycles are rented this hour? (bike_sharing: demand grows, staleness hurts)"""

from leaven import Feature, Label, Loop
from leaven.curation import Recent
from leaven.gates import NotWorse, Sane
from leaven.learners import XGBoost
from leaven.training import Hybrid
from leaven.triggers import Every

loop = Loop(
    "bike",
    features=[
        Feature("hr", "int"),
        Feature("holiday", "int"),
        Feature("weekday", "int"),
        Feature("workingday", "int"),
        Feature("weathersit", "int"),
        Feature("temp", "float"),
        Feature("atemp", "float"),
        Feature("hum", "float"),
        Feature("windspeed", "float"),
    ],
    unit="request",
    label=Label("cnt", within="1h"),  # counted by the end of the hour
    learner=XGBoost(rounds=100, max_depth=6, eta=0.1, update_rounds=10, threads=1),
    data=Recent("147d"),  # as much as the first model has
    plan=Hybrid(rebuild="28d", replay=1.0),
    triggers=[Every("7d")],
    gates=[Sane(), NotWorse("absolute_error", on="fresh", margin=0.05, min_rows=100)],
    holdout="7d",
    tick="1d",
)
