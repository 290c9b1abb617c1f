"""The papers of `arxiv.py`, by the words of their titles and by their sense, side by side in one linear head."""

from pathlib import Path
from tempfile import gettempdir

from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer
from sklearn.linear_model import SGDClassifier
from sklearn.pipeline import make_pipeline

from leaven import Feature, Label, Loop
from leaven.curation import AllHistory
from leaven.gates import NotWorse, Sane
from leaven.learners import Embedded, ScikitLearn
from leaven.training import Hybrid
from leaven.triggers import Every

KINDS = ["cs.PL", "cs.LO", "cs.CY", "cs.GT", "cs.CC", "cs.DL", "cs.MM", "cs.SD", "cs.CG", "cs.MA", "cs.GR", "cs.PF"]
words = make_pipeline(
    HashingVectorizer(n_features=2**18, ngram_range=(1, 2), alternate_sign=False, norm=None),
    TfidfTransformer(sublinear_tf=True),
)
# The head gets the title, and behind it the 384 numbers of its embedding; both halves have length 1.
sides = ColumnTransformer([("words", words, 0), ("sense", "passthrough", list(range(1, 385)))])
steps = SGDClassifier(loss="log_loss", alpha=1e-6, learning_rate="constant", eta0=1.0, max_iter=5, tol=None)

loop = Loop(
    "arxiv-both",
    features=[Feature("title", "text")],
    unit="request",
    label=Label("label", classes=KINDS, within="1d"),
    learner=Embedded(
        ScikitLearn(make_pipeline(sides, steps)),
        texts_too=True,
        kept_in=str(Path(gettempdir()) / "leaven-arxiv-embeddings.db"),
    ),
    data=AllHistory(),
    plan=Hybrid(rebuild="730d", compare_every=None),
    triggers=[Every("90d")],
    gates=[Sane(), NotWorse("log_loss", on="fresh", margin=0.1, min_rows=50)],
    holdout="30d",
    tick="1d",
)
