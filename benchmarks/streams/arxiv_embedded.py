"""The papers of `arxiv.py`, by the sense of their titles: a pretrained sentence encoder in front of a linear head."""

from pathlib import Path
from tempfile import gettempdir

from sklearn.linear_model import SGDClassifier

from leaven import Feature, Label, Loop
from leaven.curation import AllHistory
from leaven.gates import NotWorse, Sane
from leaven.learners import Embedded, ScikitLearn
from leaven.training import Hybrid
from leaven.triggers import Every

KINDS = ["cs.PL", "cs.LO", "cs.CY", "cs.GT", "cs.CC", "cs.DL", "cs.MM", "cs.SD", "cs.CG", "cs.MA", "cs.GR", "cs.PF"]
steps = SGDClassifier(loss="log_loss", alpha=1e-5, learning_rate="constant", eta0=0.2, max_iter=10, tol=None)

loop = Loop(
    "arxiv-embedded",
    features=[Feature("title", "text")],
    unit="request",
    label=Label("label", classes=KINDS, within="1d"),
    learner=Embedded(ScikitLearn(steps), kept_in=str(Path(gettempdir()) / "leaven-arxiv-embeddings.db")),
    data=AllHistory(),
    plan=Hybrid(rebuild="730d", compare_every=None),
    triggers=[Every("90d")],
    gates=[Sane(), NotWorse("log_loss", on="fresh", margin=0.1, min_rows=50)],
    holdout="30d",
    tick="1d",
)
