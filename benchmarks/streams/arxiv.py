"""Which category is this paper in, by the words of its title? (arxiv_titles: topics come, so staleness hurts)"""

from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer
from sklearn.linear_model import SGDClassifier
from sklearn.pipeline import make_pipeline

from leaven import Feature, Label, Loop
from leaven.curation import AllHistory
from leaven.gates import NotWorse, Sane
from leaven.learners import ScikitLearn
from leaven.training import Hybrid
from leaven.triggers import Every

KINDS = ["cs.PL", "cs.LO", "cs.CY", "cs.GT", "cs.CC", "cs.DL", "cs.MM", "cs.SD", "cs.CG", "cs.MA", "cs.GR", "cs.PF"]
# Words and pairs of words, hashed: one that comes later has its place from the start.
words = make_pipeline(
    HashingVectorizer(n_features=2**18, ngram_range=(1, 2), alternate_sign=False, norm=None),
    TfidfTransformer(sublinear_tf=True),
)
steps = SGDClassifier(loss="log_loss", alpha=1e-6, learning_rate="constant", eta0=4.0, max_iter=3, tol=None)

loop = Loop(
    "arxiv",
    features=[Feature("title", "text")],
    unit="request",
    label=Label("label", classes=KINDS, within="1d"),
    learner=ScikitLearn(make_pipeline(words, steps)),
    data=AllHistory(),
    plan=Hybrid(rebuild="730d", compare_every=None),
    triggers=[Every("90d")],
    gates=[Sane(), NotWorse("log_loss", on="fresh", margin=0.1, min_rows=50)],
    holdout="30d",
    tick="1d",
)
