"""Which checks are there, and in which order does one look?"""

from __future__ import annotations

from leaven.doctor.artifacts import check_artifacts
from leaven.doctor.clocks import check_clock
from leaven.doctor.database import check_database
from leaven.doctor.environment import check_settings
from leaven.doctor.finding import Check
from leaven.doctor.home import check_disk, check_home
from leaven.doctor.lake import check_lake
from leaven.doctor.log import check_log
from leaven.doctor.parts import check_parts
from leaven.doctor.ports import check_ports
from leaven.doctor.versions import check_versions

# What others stand on comes first, so that mending goes from the ground up.
CHECKS: dict[str, Check] = {
    "settings": check_settings,
    "versions": check_versions,
    "home": check_home,
    "disk": check_disk,
    "database": check_database,
    "clock": check_clock,
    "log": check_log,
    "lake": check_lake,
    "artifacts": check_artifacts,
    "parts": check_parts,
    "ports": check_ports,
}
