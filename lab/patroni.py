"""A Patroni that says what a test wants: who has the lock of its cluster, and when that one's server started."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

STARTED = "2026-11-28 02:40:00.000123+00:00"
MEMBER = {"name": "a", "state": "running", "host": "127.0.0.1", "timeline": 1}


class Patroni:
    """``self`` in an ``api_url`` is its own address."""

    def __init__(self, started: str = STARTED) -> None:
        self.members: Any = [MEMBER | {"role": "leader", "api_url": "self"}]
        self.primary: tuple[int, Any] = (200, {"role": "master", "postmaster_start_time": started})
        patroni = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                known = {"/cluster": (200, {"members": patroni.members}), "/primary": patroni.primary}
                status, said = known.get(self.path, (404, {}))
                self.send_response(status)
                self.end_headers()
                url = f"http://127.0.0.1:{patroni.port}/patroni"
                self.wfile.write(json.dumps(said).replace('"self"', json.dumps(url)).encode())

            def log_message(self, *_: Any) -> None:
                """Not to the terminal."""

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
