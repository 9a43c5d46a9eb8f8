"""HOST:PORT, as ``--listen`` and others have it."""

from __future__ import annotations

from ingest.errors import Misconfigured


def split_address(text: str, setting: str = "--listen") -> tuple[str, int]:
    """``HOST:PORT``, ``[ADDRESS]:PORT``. Raises Misconfigured."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535 or not host.strip("[]"):
        raise Misconfigured(setting, f"{text!r} is not HOST:PORT")
    return host.strip("[]"), int(port)
