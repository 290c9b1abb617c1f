"""Is what the environment says understood, and is a mistake in it seen?"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from leaven.errors import BadDefinition
from leaven.gateway.handover import decode_settings, encode_settings
from leaven.settings import environment_for_parts, known_settings, settings_from, unknown_settings

SOURCE = Path(__file__).parent.parent / "src" / "leaven" / "settings.py"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LEAVEN_SEAL_SECONDS", "soon"),
        ("LEAVEN_TRAIN_MEMORY_MB", "4GB"),
        ("LEAVEN_DURABILITY", "maybe"),
        ("LEAVEN_LOG", "xml"),
        ("LEAVEN_LOG_LEVEL", "loud"),
        ("LEAVEN_AUTH", "yes"),
        ("LEAVEN_TLS_CERT", "cert.pem"),
    ],
)
def test_a_value_that_cannot_be_meant_is_refused_by_name(name: str, value: str):
    with pytest.raises(BadDefinition, match=name):
        settings_from({name: value})


def test_a_mistyped_variable_is_seen_and_the_right_one_named():
    strange = unknown_settings(known_settings(), {"LEAVEN_DURABILTY": "os", "LEAVEN_XYZZY": "1", "PATH": "/bin"})
    assert strange == {"LEAVEN_DURABILTY": "LEAVEN_DURABILITY", "LEAVEN_XYZZY": None}


def test_every_variable_that_is_read_is_known():
    assert set(known_settings()) == set(re.findall(r"LEAVEN_[A-Z_]+[A-Z]", SOURCE.read_text()))


def test_settings_reach_parts_and_workers_as_they_are(tmp_path: Path):
    given = settings_from(
        {"LEAVEN_LOG": "json", "LEAVEN_AUTH": "on", "LEAVEN_TLS_CERT": "/a b/c.pem", "LEAVEN_TLS_KEY": "/k.pem",
         "LEAVEN_TRUSTED_TYPES": "a.B,c.D", "LEAVEN_PARENT": "7", "LEAVEN_SLOW_SECONDS": "0.5"},
        home=tmp_path,
    )  # fmt: skip
    assert decode_settings(encode_settings(given)) == given
    assert settings_from(environment_for_parts(given, parent=7)) == given
    plain = settings_from({}, home=tmp_path)
    assert decode_settings(encode_settings(plain)) == plain
    assert settings_from(environment_for_parts(plain, parent=7) | {"LEAVEN_PARENT": ""}) == plain


def test_power_is_declared_whole_or_not_at_all():
    assert settings_from({}).power is None
    both = {"LEAVEN_WATTS": "25", "LEAVEN_GRID_INTENSITY": "380.5"}
    declared = settings_from(both)
    assert declared.power == (25.0, 380.5)
    passed_on = environment_for_parts(declared, parent=1)
    assert settings_from(passed_on).power == declared.power
    for wrong in ({"LEAVEN_WATTS": "25"}, {"LEAVEN_GRID_INTENSITY": "380"}, both | {"LEAVEN_WATTS": "-1"},
                  both | {"LEAVEN_GRID_INTENSITY": "inf"}):  # fmt: skip
        with pytest.raises(BadDefinition, match="Set both"):
            settings_from(wrong)
