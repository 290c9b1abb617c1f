"""Which prompt do readers like better?"""

from leaven import Feature, Label, Loop
from leaven.events import Happens
from leaven.experiments import ABTest, Outcome
from leaven.learners import Parameters

loop = Loop(
    "prompts",
    features=[Feature("language", "category")],
    unit="reader",
    label=Label("stars", above=3, within="1h"),
    learner=Parameters(),
    rollout=[
        ABTest(
            Outcome(Label("stars", within="1h")),
            units=1_000,
            over="1d",
            secondary=[Outcome(Happens("copied", within="1h"))],
            slices=["language"],
        )
    ],
)
