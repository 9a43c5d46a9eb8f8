"""puppetboard over a front: a process of its own that says of each page how long it took, what of that was its requests,
and how long those waited for the front: the rest of them is the client's library."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from lab.servers import free_port

STARTS_S_MAX = 60
_SETTINGS = """PUPPETDB_HOST = '127.0.0.1'
PUPPETDB_PORT = {port}
SECRET_KEY = 'x' * 40
ENABLE_CATALOG = True
ENABLE_CLASS = True
OFFLINE_MODE = True
LOGLEVEL = 'error'
CACHE_TYPE = 'SimpleCache'
CACHE_DEFAULT_TIMEOUT = 0
SCHEDULER_ENABLED = False
"""


class Puppetboard:
    """A running one. ``pages`` is a file with a line of JSON for each that it has answered."""

    def __init__(self, directory: Path, front_port: int) -> None:
        self.port = free_port()
        self.pages = directory / "pages.jsonl"
        self.pages.touch()
        settings = directory / "puppetboard_settings.py"
        settings.write_text(_SETTINGS.format(port=front_port))
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "lab.puppetboard", str(self.port), str(self.pages)],
            env=os.environ | {"PUPPETBOARD_SETTINGS": str(settings), "PYTHONPATH": os.pathsep.join(sys.path)},
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        assert self.process.stdout is not None
        if not self.process.stdout.readline():
            raise RuntimeError("puppetboard does not come up: is it installed?")

    def answered(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.pages.read_text().splitlines()]

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(30)


class _Timed:
    """A WSGI application around puppetboard's."""

    def __init__(self, application: Any, pages: Path) -> None:
        self._application, self._pages = application, pages
        self._of_thread = threading.local()

    def asked(self, seconds: float, size: int) -> None:
        self._of_thread.seconds += seconds
        self._of_thread.size += size
        self._of_thread.count += 1

    def waited(self, seconds: float) -> None:
        self._of_thread.waited += seconds

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        self._of_thread.seconds, self._of_thread.waited = 0.0, 0.0
        self._of_thread.size = self._of_thread.count = 0
        start_s = time.perf_counter()
        body = b"".join(self._application(environ, start_response))
        found = {
            "path": environ["PATH_INFO"],
            "seconds": time.perf_counter() - start_s,
            "in_requests_s": self._of_thread.seconds,
            "waited_s": self._of_thread.waited,
            "requests": self._of_thread.count,
            "bytes_asked": self._of_thread.size,
        }
        with self._pages.open("a") as file:
            file.write(json.dumps(found) + "\n")
        return [body]


def main(port: str, pages: str) -> None:
    sys.argv[0] = "puppetboard"
    import requests
    from puppetboard.app import app  # type: ignore[import-untyped]
    from urllib3.connection import HTTPConnection
    from werkzeug.serving import make_server

    timed = _Timed(app.wsgi_app, Path(pages))
    plain, plain_response = requests.Session.send, HTTPConnection.getresponse

    def send(session: Any, request: Any, **more: Any) -> Any:
        start_s = time.perf_counter()
        answer = plain(session, request, **more)  # with its body
        timed.asked(time.perf_counter() - start_s, len(answer.content))
        return answer

    def getresponse(connection: Any) -> Any:
        start_s = time.perf_counter()
        answer = plain_response(connection)  # its head, and all of a small one
        timed.waited(time.perf_counter() - start_s)
        return answer

    requests.Session.send = send  # type: ignore[assignment, method-assign]
    HTTPConnection.getresponse = getresponse  # type: ignore[assignment, method-assign]
    app.wsgi_app = timed
    server = make_server("127.0.0.1", int(port), app, threaded=True)
    print("ready", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
