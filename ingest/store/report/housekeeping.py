"""Days of reports that are over, and what no report uses any more.

A day is dropped in one step that waits for locks for a moment only; when somebody reads meanwhile, it is tried again, and else
the next time. Content says itself when it was last used.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from psycopg import errors as pg

from ingest.store.connection import Connection, translate_errors
from ingest.store.housekeeping import HousekeepingSettings
from ingest.store.locks import lock_content_alone
from ingest.store.queries import query

STEP_ROWS = 5000
STEP_REPORTS, STEP_PAUSE_S = 500, 0.05
TRIES, PAUSE_S = 20, 0.25


def end_old_reports(
    connection: Connection,
    settings: HousekeepingSettings,
    *,
    pause: Callable[[float], None] = time.sleep,
) -> dict[str, int]:
    """Drops what is older than ``report_ttl``, and events older than theirs; how many, by what was done."""
    stripped = _forget_events(connection, settings, pause)
    if settings.report_ttl is None:
        return stripped
    done = stripped | {"report_days_dropped": 0, "report_days_postponed": 0}
    tries = 0
    while (dropped := _tried(connection, "drop_report_day", settings.report_ttl)) is not None:
        done["report_days_dropped"] += dropped
        if not dropped:
            _tried(connection, "empty_report_day", settings.report_ttl)
            tries += 1
            if tries >= TRIES:
                done["report_days_postponed"] = 1
                break
            pause(PAUSE_S)
    return done | _delete_contents(connection, settings.report_ttl, pause)


def _forget_events(
    connection: Connection, settings: HousekeepingSettings, pause: Callable[[float], None]
) -> dict[str, int]:
    """Reports that lost their events. Where reports themselves go first there is nothing to do."""
    ttl = settings.resource_events_ttl
    if ttl is None or (settings.report_ttl is not None and ttl >= settings.report_ttl):
        return {}
    stripped = 0
    while True:
        with translate_errors():
            row: Any = connection.execute(query("forget_report_events"), [ttl, STEP_REPORTS]).fetchone()
        stripped += row[0]
        if not row[0]:
            return {"reports_without_events": stripped}
        pause(STEP_PAUSE_S)


def _tried(connection: Connection, statement: str, ttl: timedelta) -> int | None:
    """1: done; 0: somebody was in the way; None: there is nothing to do."""
    try:
        with translate_errors(), connection.transaction():
            row = connection.execute(query(statement), [ttl]).fetchone()
    except pg.LockNotAvailable:
        return 0
    except Exception as error:
        if isinstance(error.__cause__, pg.LockNotAvailable):
            return 0
        raise
    return None if row is None or row[0] is None else 1


def _delete_contents(
    connection: Connection, ttl: timedelta, pause: Callable[[float], None]
) -> dict[str, int]:
    deleted: dict[str, int] = {}
    with translate_errors():
        unused = connection.execute(query("unused_report_contents"), {"ttl": ttl}).fetchall()
    for table, ids in unused:
        deleted[str(table)] = 0
        for start in range(0, len(ids), STEP_ROWS):  # type: ignore[arg-type]
            step = ids[start : start + STEP_ROWS]  # type: ignore[index]
            with translate_errors(), connection.transaction():
                if not lock_content_alone(connection, 10.0, pause):
                    break
                connection.execute(query("next_generation"))
                found = connection.execute(query(f"delete_{table}"), {"ids": step, "ttl": ttl})
                deleted[str(table)] += found.rowcount
    return deleted
