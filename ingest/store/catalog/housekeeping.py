"""What is kept of catalogs besides themselves: content that no node has goes, and exported resources get the texts that they are
shown by."""

from __future__ import annotations

from ingest.store.connection import Connection, translate_errors
from ingest.store.housekeeping import HousekeepingSettings, delete_unused_content
from ingest.store.queries import query

STEP_ROWS = 1000  # 30 ms


def keep_catalogs(connection: Connection, settings: HousekeepingSettings) -> dict[str, int]:
    """How many rows were deleted, by table, and how many texts were written."""
    done = delete_unused_content(connection, settings)
    return done | write_exported_texts(connection)


def write_exported_texts(connection: Connection, *, step_rows: int = STEP_ROWS) -> dict[str, int]:
    """So that collectors find them made (docs/decisions/0016-front.md). Raises Unavailable."""
    with translate_errors():
        forgotten = connection.execute(query("forget_exported_texts")).rowcount
        ids = [row[0] for row in connection.execute(query("exported_without_text"))]
        written = 0
        for start in range(0, len(ids), step_rows):
            step = ids[start : start + step_rows]
            written += connection.execute(query("write_exported_texts"), [step]).rowcount
    return {"exported_texts": forgotten, "exported_texts_written": written}
