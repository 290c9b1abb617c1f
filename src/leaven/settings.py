"""What did the environment say?

Read once, at the start of a process, by composition; every part then gets the values it needs, by name.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar, cast

from leaven.errors import BadDefinition

T = TypeVar("T")

Auth = Literal["auto", "on", "off"]
Form = Literal["text", "json"]  # of a log's lines
LEVELS = ("debug", "info", "warning", "error")


@dataclass(frozen=True, slots=True)
class Settings:
    """Where a Leaven installation keeps its things; see `docs/reference/settings.md`."""

    home: Path
    database: str
    lake: str
    artifacts: str
    clock: str
    durability: str
    log_before_reply: bool
    traces: str
    seal_seconds: float
    load_seconds: float
    challenger_seconds: float
    challenger_memory_mb: int
    query_memory: str
    keep_days: str
    keep_files: str
    erase_every: str
    erase_grace: str
    cache_mb: int
    train_seconds: float
    train_memory_mb: int
    parent: int | None
    trusted_types: tuple[str, ...]
    log: Form
    log_level: str
    slow_seconds: float
    auth: Auth
    tls_cert: Path | None
    tls_key: Path | None
    power: tuple[float, float] | None = None  # watts of a busy core, and g of CO2-equivalent per kWh of its grid

    @property
    def wal(self) -> Path:
        """Folder of the write-ahead segments, one folder in it per gateway process."""
        return self.home / "wal"

    @property
    def run(self) -> Path:
        """Folder of what belongs to running processes: ports, heartbeats, cached routing tables."""
        return self.home / "run"


def settings_from(environment: Mapping[str, str] | None = None, *, home: Path | None = None) -> Settings:
    """Return the settings of `environment` (the process's own by default); `home` wins over `LEAVEN_HOME`.

    Raises:
        BadDefinition: a variable holds what it cannot mean.
    """
    env = os.environ if environment is None else environment
    place = (home or Path(env.get("LEAVEN_HOME", ".leaven"))).absolute()
    cert = env.get("LEAVEN_TLS_CERT")
    key = env.get("LEAVEN_TLS_KEY")
    if bool(cert) != bool(key):
        raise BadDefinition("LEAVEN_TLS_CERT and LEAVEN_TLS_KEY", "only one of them is set", "Set both, or neither.")
    return Settings(
        home=place,
        database=env.get("LEAVEN_DATABASE", f"sqlite:///{place / 'control.db'}"),
        lake=env.get("LEAVEN_LAKE", str(place / "lake")),
        artifacts=env.get("LEAVEN_ARTIFACTS", str(place / "artifacts")),
        clock=env.get("LEAVEN_CLOCK", "system"),
        durability=_one_of(env, "LEAVEN_DURABILITY", ("fsync", "os")),
        log_before_reply=env.get("LEAVEN_LOG_BEFORE_REPLY", "") not in ("", "0"),
        traces=_one_of(env, "LEAVEN_TRACES", ("off", "otlp", "console")),
        seal_seconds=_number(env, "LEAVEN_SEAL_SECONDS", float, "5"),
        load_seconds=_number(env, "LEAVEN_LOAD_SECONDS", float, "300"),
        challenger_seconds=_number(env, "LEAVEN_CHALLENGER_SECONDS", float, "2"),
        challenger_memory_mb=_number(env, "LEAVEN_CHALLENGER_MEMORY_MB", int, "4096"),
        query_memory=env.get("LEAVEN_QUERY_MEMORY", "1GB"),
        keep_days=env.get("LEAVEN_KEEP_DAYS", ""),
        keep_files=env.get("LEAVEN_KEEP_FILES", "24h"),
        erase_every=env.get("LEAVEN_ERASE_EVERY", "24h"),
        erase_grace=env.get("LEAVEN_ERASE_GRACE", "24h"),
        cache_mb=_number(env, "LEAVEN_CACHE_MB", int, "10240"),
        train_seconds=_number(env, "LEAVEN_TRAIN_SECONDS", float, "3600"),
        train_memory_mb=_number(env, "LEAVEN_TRAIN_MEMORY_MB", int, "4096"),
        trusted_types=tuple(name for name in env.get("LEAVEN_TRUSTED_TYPES", "").split(",") if name),
        parent=_number(env, "LEAVEN_PARENT", int, "0") or None,
        log=cast(Form, _one_of(env, "LEAVEN_LOG", ("text", "json"))),
        log_level=_one_of(env, "LEAVEN_LOG_LEVEL", LEVELS, otherwise="info"),
        slow_seconds=_number(env, "LEAVEN_SLOW_SECONDS", float, "1"),
        auth=cast(Auth, _one_of(env, "LEAVEN_AUTH", ("auto", "on", "off"))),
        tls_cert=Path(cert) if cert else None,
        tls_key=Path(key) if key else None,
        power=_power(env),
    )


def _power(env: Mapping[str, str]) -> tuple[float, float] | None:
    watts, intensity = _number(env, "LEAVEN_WATTS", float, "0"), _number(env, "LEAVEN_GRID_INTENSITY", float, "0")
    if not (0 <= watts < float("inf") and 0 <= intensity < float("inf")) or bool(watts) != bool(intensity):
        what = f"they are {watts:g} W and {intensity:g} g/kWh"
        raise BadDefinition("LEAVEN_WATTS and LEAVEN_GRID_INTENSITY", what, "Set both to more than 0, or neither.")
    return (watts, intensity) if watts else None


def process_environment() -> dict[str, str]:
    """Return the environment of this process, for those who look for mistakes in it."""
    return dict(os.environ)


def unknown_settings(known: Collection[str], environment: Mapping[str, str] | None = None) -> dict[str, str | None]:
    """Return the variables that begin with LEAVEN_ and mean nothing, each with the one that may have been meant.

    Args:
        known: The variables that mean something, as `known_settings` gives them.
        environment: The process's own by default.
    """
    from difflib import get_close_matches

    env = os.environ if environment is None else environment
    strange = sorted(name for name in env if name.startswith("LEAVEN_") and name not in known)
    return {name: next(iter(get_close_matches(name, known, 1, 0.75)), None) for name in strange}


def known_settings() -> tuple[str, ...]:
    """Return the name of every variable that is read here."""
    seen = _Seen()
    settings_from(seen)
    client_settings_from(seen)
    debugging(seen)
    return tuple(sorted(seen.asked))


class _Seen(dict[str, str]):
    """An empty environment that remembers what it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: set[str] = set()

    def get(self, name: str, default: str | None = None) -> str | None:  # type: ignore[override]
        self.asked.add(name)
        return default


def _one_of(env: Mapping[str, str], name: str, choices: tuple[str, ...], *, otherwise: str | None = None) -> str:
    given = env.get(name) or otherwise or choices[0]
    if given not in choices:
        raise BadDefinition(name, f"{given!r} is none of its values", f"Set it to {', '.join(choices)}.")
    return given


def _number(env: Mapping[str, str], name: str, kind: Callable[[str], T], default: str) -> T:
    given = env.get(name) or default
    try:
        return kind(given)
    except ValueError as error:
        raise BadDefinition(name, f"{given!r} is no number", f"Set it to one, such as {default}.") from error


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """How an application reaches its gateway; see `docs/howto/client.md`."""

    gateway: str
    token: str | None
    spool: Path | None
    ca: Path | None


def client_settings_from(environment: Mapping[str, str] | None = None) -> ClientSettings:
    """Return what `environment` (the process's own by default) says to a client."""
    env = os.environ if environment is None else environment
    return ClientSettings(
        gateway=env.get("LEAVEN_GATEWAY", "http://127.0.0.1:8080"),
        token=env.get("LEAVEN_TOKEN") or None,
        spool=Path(env["LEAVEN_SPOOL"]) if env.get("LEAVEN_SPOOL") else None,
        ca=Path(env["LEAVEN_CA"]) if env.get("LEAVEN_CA") else None,
    )


def environment_for_parts(settings: Settings, *, parent: int) -> dict[str, str]:
    """Return the environment of a process that belongs to this installation and ends with the process `parent`."""
    return os.environ | {
        "LEAVEN_HOME": str(settings.home),
        "LEAVEN_DATABASE": settings.database,
        "LEAVEN_LAKE": settings.lake,
        "LEAVEN_ARTIFACTS": settings.artifacts,
        "LEAVEN_CLOCK": settings.clock,
        "LEAVEN_DURABILITY": settings.durability,
        "LEAVEN_LOG_BEFORE_REPLY": "1" if settings.log_before_reply else "",
        "LEAVEN_TRACES": settings.traces,
        "LEAVEN_SEAL_SECONDS": str(settings.seal_seconds),
        "LEAVEN_LOAD_SECONDS": str(settings.load_seconds),
        "LEAVEN_CHALLENGER_SECONDS": str(settings.challenger_seconds),
        "LEAVEN_CHALLENGER_MEMORY_MB": str(settings.challenger_memory_mb),
        "LEAVEN_QUERY_MEMORY": settings.query_memory,
        "LEAVEN_KEEP_DAYS": settings.keep_days,
        "LEAVEN_KEEP_FILES": settings.keep_files,
        "LEAVEN_ERASE_EVERY": settings.erase_every,
        "LEAVEN_ERASE_GRACE": settings.erase_grace,
        "LEAVEN_CACHE_MB": str(settings.cache_mb),
        "LEAVEN_TRAIN_SECONDS": str(settings.train_seconds),
        "LEAVEN_TRAIN_MEMORY_MB": str(settings.train_memory_mb),
        "LEAVEN_TRUSTED_TYPES": ",".join(settings.trusted_types),
        "LEAVEN_LOG": settings.log,
        "LEAVEN_LOG_LEVEL": settings.log_level,
        "LEAVEN_SLOW_SECONDS": str(settings.slow_seconds),
        "LEAVEN_AUTH": settings.auth,
        "LEAVEN_TLS_CERT": str(settings.tls_cert or ""),
        "LEAVEN_TLS_KEY": str(settings.tls_key or ""),
        "LEAVEN_WATTS": str(settings.power[0]) if settings.power else "",
        "LEAVEN_GRID_INTENSITY": str(settings.power[1]) if settings.power else "",
        "LEAVEN_PARENT": str(parent),
    }


def variable(name: str) -> str | None:
    """Return an environment variable that a description names, such as one that holds the token of an endpoint."""
    return os.environ.get(name)


def calm_threads(threads: int | None = None) -> None:
    """Let OpenMP's idle threads sleep instead of spin, and use `threads` of them, unless the user chose otherwise.

    Spinning threads of several processes on few cores take each other's time: a replay took five times as long. A
    gateway worker answers a few rows at a time, for which a second thread costs more than it gives.
    To be called before a learner's library is loaded.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if threads is not None:
        os.environ.setdefault("OMP_NUM_THREADS", str(threads))


def limit_memory(megabytes: int) -> None:
    """Let this process hold so much private memory; beyond that it gets MemoryError.

    Not address space: threads reserve far more of that than they ever use.
    """
    import resource

    limit = megabytes * 2**20
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def calm_grpc() -> None:
    """Let processes be started without gRPC's preparations for a fork, which it does not need: they begin anew."""
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")


def open_files() -> int:
    """Let this process open as many files as the system allows it, and return how many that is."""
    import resource

    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return int(most) if most != resource.RLIM_INFINITY else 2**20


def debugging(environment: Mapping[str, str] | None = None) -> bool:
    """Return whether `LEAVEN_DEBUG` asks for tracebacks where a sentence would do."""
    return (os.environ if environment is None else environment).get("LEAVEN_DEBUG", "") not in ("", "0")
