"""A front as the machine sees it: its memory, its descriptors, its connections to the database."""

from __future__ import annotations

import os
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

from ingest.store.connection import Connection
from lab.front import Front

MIB = 1024 * 1024


def memory_bytes(front: Front) -> int:
    """Resident, in its one process."""
    lines = Path(f"/proc/{front.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))


def descriptors(front: Front) -> int:
    """Open ones, those to the database's sessions too."""
    return len(os.listdir(f"/proc/{front.process.pid}/fd"))


def sessions(connection: Connection) -> int:
    """At the database, idle ones too."""
    row: Any = connection.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'ingest serve%'"
    ).fetchone()
    return int(row[0])


def rows_of_all_tables(connection: Connection) -> dict[str, int]:
    names: Any = connection.execute(
        "SELECT quote_ident(tablename) FROM pg_tables WHERE schemaname = 'public' ORDER BY 1"
    ).fetchall()
    found: dict[str, int] = {}
    for (name,) in names:
        row: Any = connection.execute(f"SELECT count(*) FROM {name}").fetchone()  # type: ignore[call-overload]
        found[name] = row[0]
    return found


def kinds_of_descriptors(front: Front) -> Counter[str]:
    found: Counter[str] = Counter()
    for entry in Path(f"/proc/{front.process.pid}/fd").iterdir():
        with suppress(OSError):
            found[os.readlink(entry).partition(":")[0]] += 1
    return found
