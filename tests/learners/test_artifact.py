import subprocess
import sys

import msgspec
import pytest

from leaven.learners import XGBoost
from leaven.learners.artifact import MANIFEST, ModelArtifact, load_artifact
from leaven.learners.formats import ModelDamaged, UnknownFormat
from tests.learners.builders import a_training_set, some_columns


def an_artifact(format="xgboost-ubj"):
    data, learner = a_training_set(), XGBoost(3, threads=1)
    return ModelArtifact(format, data.encoder, repr(learner), learner.fit(data, seed=1), {"xgboost": "3", "numpy": "2"})


def test_an_artifact_survives_being_stored():
    artifact = an_artifact()
    assert ModelArtifact.from_files(artifact.to_files()) == artifact


def test_equal_artifacts_are_equal_bytes():
    assert an_artifact().to_files() == an_artifact().to_files()


def test_what_is_missing_or_from_the_future_is_refused_in_words():
    files = an_artifact().to_files()
    manifest = msgspec.json.decode(files[MANIFEST])
    with pytest.raises(ModelDamaged, match=r"no manifest\.json"):
        load_artifact({name: content for name, content in files.items() if name != MANIFEST})
    with pytest.raises(ModelDamaged, match="layout 2"):
        load_artifact({**files, MANIFEST: msgspec.json.encode(manifest | {"layout": 2})})
    with pytest.raises(ModelDamaged, match="manifest"):
        load_artifact({**files, MANIFEST: b"{}"})
    with pytest.raises(UnknownFormat, match="'pickle'"):
        load_artifact(an_artifact(format="pickle").to_files())


def test_loading_a_model_imports_only_its_own_library():
    """xgboost itself looks for scikit-learn, so only skops can show that nothing else came along."""
    program = (
        "import sys, leaven.learners, leaven.learners.artifact\n"
        "print(sorted({'xgboost', 'sklearn', 'skops', 'scipy', 'duckdb', 'deltalake'} & set(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "[]"


def test_one_row_takes_part_in_no_scan_of_the_category_map():
    """A gateway encodes row by row: the map is turned round once, not per request."""
    served = load_artifact(an_artifact().to_files())
    served.answer(some_columns(1))
    turned = served.encoder._codes
    served.answer(some_columns(1))
    assert served.encoder._codes is turned
