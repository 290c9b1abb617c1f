"""How fast is a harmful canary gone, when nobody is there but the controller?

    python -m benchmarks.rollbacks [--times 5] [--workers 2]

The whole system runs (`leaven up`, by the machine's clock, with a look every second) while visitors ask all the time.
A version that fails for some of them is made a canary of half of the units, again and again; each time the canary's own
rule ends it. Three figures: from the first canary reply to the decision (logging, flushing, the look, the rule), from
the decision to the moment at which every gateway routes by the new table, and to the last reply of the canary.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

LOOP = """
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import skops.io
from sklearn.linear_model import LogisticRegression

from leaven import Feature, Label, Loop
from leaven.curation import Recent
from leaven.experiments import Canary
from leaven.learners import ScikitLearn
from leaven.training import Stateless


@dataclass(frozen=True)
class FailsOnceToldTo:
    format = "skops"
    stateful = False

    def fit(self, data, *, seed):
        files = dict(ScikitLearn(LogisticRegression()).fit(data, seed=seed))
        if Path({bad!r}).exists():  # infinity times nothing is no number: rows with x = 0 fail
            model = skops.io.loads(files["model.skops"])
            model.coef_[:] = np.inf
            files["model.skops"] = skops.io.dumps(model)
        return files


loop = Loop(
    "shop", features=[Feature("x", "float")], unit="user", label=Label("bought", above=0.5, within="1h"),
    learner=FailsOnceToldTo(), data=Recent("30d"), plan=Stateless(), rollout=[Canary(0.5, each="1h")], holdout="2d",
    tick="1s",
)
"""


def main() -> None:
    """Measure, and print one JSON value."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--times", type=int, default=5)
    options.add_argument("--workers", type=int, default=2)
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as folder, running(Path(folder), given.workers) as system:
        for _ in range(given.times):
            system.one_rollback()
        refused = [status for _, status, _ in system.replies if status != 200]
        print(json.dumps({
            "rollbacks": given.times, "replies": len(system.replies), "failed_replies": len(refused),
            "first_canary_reply_to_decision_s": described(system.found),
            "decision_to_every_gateway_s": described(system.followed),
            "decision_to_last_canary_reply_s": described(system.last_replies),
        }, indent=2))  # fmt: skip


@dataclass
class System:
    """`leaven up` and its visitors."""

    home: Path
    port: int
    stopped: threading.Event = field(default_factory=threading.Event)
    replies: list[tuple[float, int, str]] = field(default_factory=list)  # when, status, version
    found: list[float] = field(default_factory=list)
    followed: list[float] = field(default_factory=list)
    last_replies: list[float] = field(default_factory=list)

    def one_rollback(self) -> None:
        """Make version 2 a canary, and time its end."""
        app = opened(self.home)
        begun = time.monotonic()
        leaven(self.home, "trial", "start", "shop", "2", "--from", "canary")
        until(lambda: any(at >= begun and version == "2" for at, _, version in self.replies[-2_000:]), "a canary reply")
        first = next(at for at, _, version in self.replies if at >= begun and version == "2")
        until(lambda: trial_of(app) is None, "the rollback", pause=0.002)
        decided = time.monotonic()
        until(lambda: routed_everywhere(app), "the gateways", pause=0.002)
        self.followed.append(time.monotonic() - decided)
        time.sleep(2.0)
        last = max(at for at, _, version in self.replies if version == "2")
        self.found.append(decided - first)
        self.last_replies.append(max(0.0, last - decided))
        app.close()

    def visit(self, number: int) -> None:
        """Ask until stopped."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        chance = random.Random(number)
        while not self.stopped.is_set():
            inputs = [{"name": "x", "shape": [1], "datatype": "FP64", "data": [float(chance.randint(-3, 3))]}]
            body = json.dumps({"inputs": inputs, "parameters": {"unit": f"u{chance.randint(0, 5_000)}"}})
            connection.request("POST", "/v2/models/shop/infer", body, {"Content-Type": "application/json"})
            reply = connection.getresponse()
            said = json.loads(reply.read())
            self.replies.append((time.monotonic(), reply.status, said.get("parameters", {}).get("version", "")))
            time.sleep(0.005)


@contextmanager
def running(folder: Path, workers: int) -> Iterator[System]:
    """The system with a good version 1 that serves and a version 2 that fails, and two visitors."""
    home, bad, loop_file = folder / "home", folder / "bad", folder / "shop.py"
    home.mkdir()
    loop_file.write_text(LOOP.format(bad=str(bad)))
    past(folder / "past.csv")
    leaven(home, "events", "import", str(loop_file), str(folder / "past.csv"), "--time", "at", "--label-time", "told")
    log = folder / "up.log"
    command = [sys.executable, "-m", "leaven", "up", str(loop_file), "--port", "0", "--workers", str(workers)]
    with log.open("w") as output:
        up = subprocess.Popen([*command, "--home", str(home)], stdout=output, stderr=output)
    try:
        until(lambda: "Ctrl-C stops" in log.read_text(), "everything to run")
        for number in (1, 2):
            leaven(home, "retrain", "shop")
            until(lambda wanted=number: wanted in versions_of(home), f"version {number}")  # type: ignore[misc]
            bad.touch()
        leaven(home, "trial", "abort", "shop")
        system = System(home, int(log.read_text().partition("http://127.0.0.1:")[2].split()[0]))
        threads = [threading.Thread(target=system.visit, args=(number,)) for number in range(2)]
        for thread in threads:
            thread.start()
        try:
            yield system
        finally:
            system.stopped.set()
            for thread in threads:
                thread.join()
    finally:
        up.terminate()
        up.wait(60)


def past(file: Path) -> None:
    """A month of visitors of whom those with a positive x buy."""
    chance, now = random.Random(0), datetime.now(UTC)
    rows = ["at,told,user,x,bought"]
    for minutes in range(30 * 24 * 60, 120, -15):
        at, x = now - timedelta(minutes=minutes), chance.gauss(0, 1)
        rows.append(f"{at.isoformat()},{(at + timedelta(minutes=9)).isoformat()},u{minutes},{x:.4f},{int(x > 0)}")
    file.write_text("\n".join(rows) + "\n")


def leaven(home: Path, *arguments: str) -> None:
    command = [sys.executable, "-m", "leaven", *arguments, "--home", str(home)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "NO_COLOR": "1"})
    assert done.returncode == 0, done.stdout + done.stderr


def opened(home: Path) -> Any:
    from leaven.app import App
    from leaven.settings import settings_from

    return App(settings_from({}, home=home))


def versions_of(home: Path) -> list[int]:
    """Versions that serve, or whose trial is open."""
    from leaven.registry import aliases

    app = opened(home)
    with app.database.read() as connection:
        found = list(aliases.aliases(connection, "shop").values())
    app.close()
    return found


def trial_of(app: Any) -> Any:
    from leaven.controller import state

    with app.database.read() as connection:
        return state.active_trial(connection, "shop")


def routed_everywhere(app: Any) -> bool:
    from leaven.registry import routing

    with app.database.read() as connection:
        latest, known = routing.latest(connection, "shop"), routing.gateways(connection)
    assert latest is not None
    return bool(known) and all(one.revisions.get("shop", 0) >= latest.revision for one in known)


def until(holds: Callable[[], Any], what: str, *, pause: float = 0.05) -> None:
    end = time.monotonic() + 300
    while not holds():
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(pause)


def described(seconds: list[float]) -> dict[str, float]:
    return {"median": round(sorted(seconds)[len(seconds) // 2], 3), "longest": round(max(seconds), 3)}


if __name__ == "__main__":
    main()
