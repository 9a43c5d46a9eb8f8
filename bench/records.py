"""The raw record of a run: what was measured, on what, with which commit. Reports are made from these."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

DIRECTORY = Path(__file__).parent / "records"


def record(suite: str, settings: dict[str, Any], rows: list[dict[str, Any]]) -> Path:
    """Writes one JSON file; returns where."""
    DIRECTORY.mkdir(exist_ok=True)
    now = datetime.now(UTC)
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    document = {
        "suite": suite,
        "at": now.isoformat(timespec="seconds"),
        "commit": commit.stdout.strip(),
        "machine": {
            "cores": os.cpu_count(),
            "system": platform.platform(),
            "python": platform.python_version(),
        },
        # A directory's name says what was in it; where it lay is nobody's business.
        "settings": {
            key: value.name if isinstance(value, Path) else str(value) for key, value in settings.items()
        },
        "rows": rows,
    }
    file = DIRECTORY / f"{suite}-{now:%Y%m%d-%H%M%S}.json"
    file.write_text(json.dumps(document, indent=1) + "\n")
    return file
