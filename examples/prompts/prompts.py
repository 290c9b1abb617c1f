"""Which prompt do readers like better?"""

from leaven import Feature, Label, Loop
from leaven.experiments import Canary
from leaven.learners import Parameters

loop = Loop(
    "prompts",
    features=[Feature("language", "category")],
    unit="reader",
    label=Label("stars", above=3, within="1h"),
    learner=Parameters(),
    rollout=[Canary(0.5, each="1h")],
)
