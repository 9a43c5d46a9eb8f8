"""Runs the embedded broker as a process of its own, for those who get the login that was made for it."""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ingest.errors import Misconfigured, Unavailable

USER = "ingest"
URL_FILE = "embedded-broker.url"  # in data_dir: who can read it may publish


@contextmanager
def embedded_broker(
    port: int, url_file: Path | None = None, *, log_format: str = "console", log_level: str = "warning"
) -> Iterator[str]:
    """Runs the embedded broker on 127.0.0.1 (port 0: a free one); gives its URL with the login, which no other user of
    this machine gets to see. The URL is in ``url_file`` too, while it runs.

    Raises Unavailable when the port is taken.
    """
    password = secrets.token_urlsafe(24)
    process = subprocess.Popen(
        [sys.executable, "-m", "ingest.embedded.broker", "--port", str(port), "--with-parent",
         "--login-file", "-", "--log-format", log_format, "--log-level", log_level],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )  # fmt: skip
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(f"{USER}:{password}\n")
            process.stdin.close()
        word, _, said = process.stdout.readline().strip().partition(" ")
        if word != "listening":
            raise Unavailable(said or "the embedded broker did not start")
        url = f"stomp://{USER}:{password}@{said}"
        with _written(url, url_file):
            yield url
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


def running_broker(data_dir: str) -> str:
    """The URL of an embedded broker that a running engine of this user has started; empty where there is none."""
    file = Path(data_dir) / URL_FILE
    try:
        with file.open(encoding="utf-8") as opened:
            if os.fstat(opened.fileno()).st_uid == os.geteuid():
                return opened.readline().strip()
    except (OSError, UnicodeDecodeError):
        pass
    return ""


@contextmanager
def _written(url: str, file: Path | None) -> Iterator[None]:
    if file is None:
        yield
        return
    # Under another name first: who finds the file finds all of it.
    part = file.with_name(f"{file.name}.{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        part.unlink(missing_ok=True)
        fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(fd, "w", encoding="utf-8") as opened:
            opened.write(f"{url}\n")
        part.replace(file)
    except OSError as error:
        raise Misconfigured("--data-dir", f"cannot write {file}: {error.strerror}") from error
    try:
        yield
    finally:
        file.unlink(missing_ok=True)
