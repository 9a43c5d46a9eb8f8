"""What each error of PostgreSQL means for the messages at work: wait, or quarantine."""

from __future__ import annotations

import pytest
from psycopg import errors as pg

from ingest.errors import Misconfigured, Rejected, Unavailable
from ingest.store.sqlstates import translate

WAIT = [
    pg.AdminShutdown, pg.CrashShutdown, pg.CannotConnectNow, pg.ConnectionFailure, pg.QueryCanceled,
    pg.ReadOnlySqlTransaction, pg.IdleInTransactionSessionTimeout, pg.InFailedSqlTransaction, pg.DiskFull,
    pg.OutOfMemory, pg.TooManyConnections, pg.LockNotAvailable, pg.DeadlockDetected, pg.SerializationFailure, pg.IoError,
    pg.FeatureNotSupported,  # "cached plan must not change result type"
]  # fmt: skip
MEND = [
    pg.InsufficientPrivilege,
    pg.UndefinedTable,
    pg.UndefinedColumn,
    pg.InvalidPassword,
    pg.InvalidCatalogName,
]
CONTENT = [
    pg.StringDataRightTruncation, pg.NumericValueOutOfRange, pg.UntranslatableCharacter, pg.ProgramLimitExceeded,
    pg.NotNullViolation, pg.InvalidTextRepresentation,
]  # fmt: skip


@pytest.mark.parametrize(
    ("kinds", "plan"), [(WAIT, Unavailable), (MEND, Misconfigured), (CONTENT, Rejected)], ids=["wait", "mend", "content"]
)  # fmt: skip
def test_only_what_the_content_causes_is_refused(kinds: list[type[pg.Error]], plan: type[Exception]) -> None:
    """A state of the server or of its settings never sends a message to quarantine."""
    for kind in kinds:
        assert type(translate(kind("said by the server"))) is plan, kind
