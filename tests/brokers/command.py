"""The commands of ``ingest``, as a person would type them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def ingest(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Runs one to its end; fails when that does not come."""
    return subprocess.run(
        [sys.executable, "-m", "ingest", *arguments], capture_output=True, text=True, timeout=120, check=False,
        env=os.environ | {"INGEST_GC_INTERVAL_S": "0"},
    )  # fmt: skip
