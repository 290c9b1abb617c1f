"""What happens in the shop when nothing goes wrong, and installations that begin at a moment of it.

History until day 6, when the first version is trained and promoted, and then until day 9.5, when the gateway's visitors
begin to come; on day 10 a refresh is due, whose version is shadowed, then serves half of the units, then is promoted.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.acceptance.worlds import SERVED_FROM, World, a_world, shop_past
from tests.servers.postgres import PostgresServer

TICK = 0.5
# Moments just before a tick at which something happens: everything that the tick will see is in the lake.
MOMENTS = {"refresh due": 10.0, "advance due": 11.0, "promotion due": 12.0}
LAST = 12.5


def tell(folder: Path) -> None:
    """Live through it, undisturbed, and keep in `folder` what it came to, and installations to begin with."""
    states: dict[str, Any] = {}
    with a_world(folder) as world:
        world.copy_to(folder / "nothing yet")
        world.start("controller")
        world.start_gateway()
        world.settle(SERVED_FROM)
        states[str(SERVED_FROM)] = world.everything()
        world.remember(9.5)
        world.pass_to(9.5)
        world.begin_sending()
        now = 9.5
        while now < LAST:
            now += TICK
            world.send_until(now, shy=True)
            for name, at in MOMENTS.items():
                if at == now:
                    world.copy_to(folder / name)
            world.pass_to(now)
            states[str(now)] = world.everything()
        world.send_until(LAST + TICK, shy=True)
        world.copy_to(folder / "promoted")
    (folder / "states.json").write_text(json.dumps(states))


@dataclass(frozen=True)
class Story:
    """The undisturbed life, told."""

    folder: Path

    def state(self, at: float) -> Any:
        """All that the control database held after day `at`."""
        return json.loads((self.folder / "states.json").read_text())[str(at)]

    def begin(self, moment: str, home: Path, *, postgres: PostgresServer | None = None) -> World:
        """An installation that stands where the story stood at `moment`; nothing runs yet."""
        shutil.copytree(self.folder / moment, home)
        world = World(home, self.folder / "shop.py", shop_past())
        if postgres is not None:
            world.move_database_to(postgres)
        world.end_lease()  # the story's own controller held it
        return world

    def copy_lake(self, moment: str, lake: Path) -> None:
        """Lay down at `lake` all events up to `moment`."""
        shutil.copytree(self.folder / moment / "lake", lake)
