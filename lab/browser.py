"""Headless Chromium, spoken to over two pipes: pages are opened, asked and photographed."""

from __future__ import annotations

import base64
import itertools
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium")
ANSWER_TIMEOUT_S = 60


class Browser:
    """One tab."""

    def __init__(self, to_it: int, from_it: int) -> None:
        self._to_it, self._from_it = to_it, from_it
        self._numbers = itertools.count(1)
        self._received = b""
        self._session = ""
        self.events: list[dict[str, Any]] = []
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to_it, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == number:
                assert "error" not in answer, answer
                found: dict[str, Any] = answer["result"]
                return found
            self.events.append(answer)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._received:
            ready, _, _ = select.select([self._from_it], [], [], ANSWER_TIMEOUT_S)
            assert ready, "Chromium keeps silent"
            piece = os.read(self._from_it, 1 << 20)
            assert piece, "Chromium has left"
            self._received += piece
        text, _, self._received = self._received.partition(b"\0")
        found: dict[str, Any] = json.loads(text)
        return found

    def show(self, url: str, *, width: int = 1200, height: int = 1400, dark: bool = False) -> None:
        self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=width < 600,
        )  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", features=[scheme])
        self.ask("Page.navigate", url=url)

    def value(self, expression: str) -> Any:
        return self.ask("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def until(self, expression: str, timeout_s: float = 60) -> Any:
        deadline_s = time.monotonic() + timeout_s
        while not (found := self.value(expression)):
            assert time.monotonic() < deadline_s, f"never: {expression}"
            time.sleep(0.05)
        return found

    def press(self, key: str, code: int) -> None:
        for kind in ("rawKeyDown", "keyUp"):
            self.ask("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)

    def photograph(self, file: Path) -> None:
        size = self.value("JSON.stringify([innerWidth, document.documentElement.scrollHeight])")
        width, height = json.loads(size)
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        found = self.ask("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)
        file.write_bytes(base64.b64decode(found["data"]))

    def complaints(self) -> list[str]:
        """What the page's console was told of, and exceptions."""
        return [
            json.dumps(event["params"])[:500]
            for event in self.events
            if event.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded")
        ]


@contextmanager
def browser() -> Iterator[Browser]:
    assert CHROMIUM is not None
    profile = tempfile.mkdtemp(prefix="ingest-chromium-")
    there, to_it = os.pipe()
    from_it, back = os.pipe()
    # It reads commands from descriptor 3 and writes to 4.
    command = [
        "bash", "-c", f'exec "$@" 3<&{there} 4>&{back}', "bash", CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu",
        "--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking", "--disable-component-update",
        "--remote-debugging-pipe", f"--user-data-dir={profile}",
    ]  # fmt: skip
    process = subprocess.Popen(
        command, pass_fds=(there, back), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    os.close(there)
    os.close(back)
    try:
        yield Browser(to_it, from_it)
    finally:
        process.terminate()
        process.wait(30)
        os.close(to_it)
        os.close(from_it)
        shutil.rmtree(profile, ignore_errors=True)
