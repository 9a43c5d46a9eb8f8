"""How commands find the engine that runs here: a private file that says whom it talks to, for as long as it runs.

The engine holds a lock on it, so that what one left behind that was killed is known for what it is.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import platformdirs

from ingest.config.directories import make_private
from ingest.config.settings import Config
from ingest.errors import Misconfigured

SUFFIX = ".engine"
NAME = "puppet-ingest"
SERVICE_DIRECTORY = Path("/run") / NAME  # root's own, and that of a service of systemd; root looks there too
DEFAULTS = Config()
INSTANCE = re.compile(r"[\w.-]{1,64}", re.ASCII)


class RunningEngine(msgspec.Struct, frozen=True):
    """What an engine says of itself; the settings of that name, with passwords."""

    instance: str
    pid: int
    queue_source: str
    database: str
    metrics_host: str
    metrics_port: int
    destination: str = DEFAULTS.destination  # an engine of the version before does not tell
    facts_destination: str = DEFAULTS.facts_destination
    reports_destination: str = DEFAULTS.reports_destination
    producers_source: str = ""  # of the embedded broker, with the login of those who only send
    collectors_database: str = (
        ""  # of the embedded PostgreSQL, with the login of those who only read its views
    )


@contextmanager
def told_of(config: Config, producers_source: str = "", collectors_database: str = "") -> Iterator[None]:
    """Commands of the same user, and of root, find this engine meanwhile. An engine runs on without that."""
    import structlog  # not what a command that only looks for an engine waits for

    log = structlog.get_logger()
    require_instance(config.instance)
    engine = RunningEngine(
        config.instance,
        os.getpid(),
        config.queue_source,
        config.database,
        config.metrics_host,
        config.metrics_port,
        *config.destinations,
        producers_source,
        collectors_database,
    )
    path = _directory() / f"{config.instance}{SUFFIX}"
    try:
        fd = _written(path, engine)
    except OSError as error:
        log.warning("commands_will_not_find_it", file=str(path), reason=error.strerror)
        yield
        return
    if fd is None:
        log.info(
            "commands_will_not_find_it",
            file=str(path),
            reason="another engine has this --instance: name each",
        )
        yield
        return
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            path.unlink()
        os.close(fd)


def running_engine(instance: str, metrics: tuple[str, int] | None = None) -> RunningEngine | None:
    """The one of that name; where it is empty, the only one that runs (and serves its metrics there). Raises Misconfigured
    when there are several."""
    found = _running()
    if instance:
        return found.get(instance)
    if metrics is not None:
        found = {
            name: each for name, each in found.items() if (each.metrics_host, each.metrics_port) == metrics
        }
    if len(found) > 1:
        raise Misconfigured("--instance", f"several engines run here: {', '.join(sorted(found))}")
    return next(iter(found.values()), None)


def require_running(instance: str) -> None:
    """Raises Misconfigured where no engine of that name runs here, with those that do."""
    found = _running()
    if instance not in found:
        others = f"there is {', '.join(sorted(found))}" if found else "nor does any other"
        raise Misconfigured("--instance", f"no engine {instance!r} runs here; {others}")


def _running() -> dict[str, RunningEngine]:
    found: dict[str, RunningEngine] = {}
    for directory in _directories():
        for path in sorted(directory.glob(f"*{SUFFIX}")):
            engine = _read(path)
            if engine is not None:
                found.setdefault(engine.instance, engine)
    return found


def require_instance(instance: str) -> None:
    """Raises Misconfigured for what cannot be a file's name."""
    if not INSTANCE.fullmatch(instance) or instance.startswith("."):
        raise Misconfigured(
            "--instance",
            f"{instance!r} is not a name of 1 to 64 letters, digits, _, . and -, with another first than .",
        )


def _directory() -> Path:
    """Where an engine of this user leaves its file. systemd names the one of a service. Never one in /tmp: there anybody
    may have made it before us."""
    if named := os.environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]:
        return Path(named)
    if os.geteuid() == 0:
        if _owner(SERVICE_DIRECTORY) in (None, 0) and os.access(SERVICE_DIRECTORY.parent, os.W_OK):
            return SERVICE_DIRECTORY
    elif (session := os.environ.get("XDG_RUNTIME_DIR")) and _is_private(Path(session)):
        return Path(session) / NAME  # after ``su`` the variable may name somebody else's
    return Path(platformdirs.user_state_dir(NAME, appauthor=False)) / "run"


def _owner(directory: Path) -> int | None:
    try:
        return directory.lstat().st_uid
    except OSError:
        return None


def _directories() -> list[Path]:
    """Where to look: nobody else may write there."""
    places = [_directory()]
    if os.geteuid() == 0 and "RUNTIME_DIRECTORY" not in os.environ and SERVICE_DIRECTORY not in places:
        places.append(SERVICE_DIRECTORY)
    return [place for place in places if _is_private(place)]


def _is_private(directory: Path) -> bool:
    try:
        found = directory.lstat()
    except OSError:
        return False
    is_ours = found.st_uid == os.geteuid() or (os.geteuid() == 0 and directory == SERVICE_DIRECTORY)
    return is_ours and stat.S_ISDIR(found.st_mode) and not found.st_mode & 0o022


def _written(path: Path, engine: RunningEngine) -> int | None:
    """The open file, locked; None: another engine has it. Raises OSError."""
    make_private(path.parent)
    if not _is_private(path.parent):
        raise PermissionError(1, "its directory is somebody else's")
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        return None
    os.fchmod(fd, 0o600)
    os.ftruncate(fd, 0)
    os.pwrite(fd, msgspec.json.encode(engine), 0)
    return fd


def _read(path: Path) -> RunningEngine | None:
    """None: it is nobody's any more, or none of ours."""
    try:
        # A service's user may have put a pipe there, and root would wait for its other end.
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    with open(fd, "rb") as file:
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):
                return msgspec.json.decode(file.read(), type=RunningEngine)
    return None
