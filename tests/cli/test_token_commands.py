"""Can an owner make, see and revoke tokens on the command line?"""

from __future__ import annotations

import json
from pathlib import Path

from leaven.storage.control.database import ControlDatabase


def test_a_token_is_shown_once_listed_and_revoked(leaven, tmp_path: Path):
    home = ("--home", tmp_path / "home")
    made = leaven("token", "create", "checkout", "--role", "serve", "--role", "feedback", "--expires", "90d", *home)
    assert made.returncode == 0, made.stderr
    token, said = made.stdout.splitlines()
    id = token.split("_")[1]
    assert said.startswith(f"id {id}, good for serve and feedback of every loop, until 20")
    listed = leaven("token", "list", "--json", *home)
    (one,) = json.loads(listed.stdout)
    assert (one["id"], one["name"], one["roles"], one["state"]) == (id, "checkout", ["serve", "feedback"], "valid")
    assert token not in listed.stdout
    assert leaven("token", "revoke", id, *home).returncode == 0
    shown = leaven("token", "list", *home).stdout
    assert "checkout" in shown
    assert "revoked" in shown


def test_wrong_use_makes_no_token(leaven, tmp_path: Path):
    home = ("--home", tmp_path / "home")
    for wrong, code in (
        (("x", "--role", "root"), 2),
        (("x",), 2),
        (("x", "--role", "serve", "--expires", "soon"), 2),
        (("x", "--role", "serve", "--loop", "hotels"), 3),
    ):
        assert leaven("token", "create", *wrong, *home).returncode == code, wrong
    assert leaven("token", "revoke", "abc", "--json", *home).returncode == 3
    assert json.loads(leaven("token", "list", "--json", *home).stdout) == []
    assert ControlDatabase(f"sqlite:///{tmp_path / 'home' / 'control.db'}").file.exists()
