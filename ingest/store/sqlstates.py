"""Whose fault an error of PostgreSQL is, by its SQLSTATE.

Source: PostgreSQL documentation, appendix A. Only what is listed as a row's own fault settles a message; whatever else
goes wrong, known or not, waits until somebody mends it: a good catalog must not pay for a full disk.
"""

from __future__ import annotations

# The row itself: another one in its place would have been stored.
OF_THE_ROW = frozenset(
    (
        "22000", "22001", "22003", "22007", "22008", "22012", "22018", "22021", "2202E", "22026", "22P02", "22P03",
        "22P04", "22P05", "22030", "22032", "22033", "22034", "22035", "22036", "2203A", "2203B", "2203C", "2203D", "2203E",
        "2203F", "2203G",  # data exceptions: a value that its type cannot hold
        "23000", "23001", "23502", "23503", "23505", "23514", "23P01",  # integrity: a value that a constraint refuses
        "54000", "54001", "54011", "54023",  # a limit of PostgreSQL: an index entry, a field, nesting
    )
)  # fmt: skip
# A person has to change a setting, a role or an address.
OF_A_SETTING = ("28", "3D000", "42501", "3F000", "42P01", "42703", "42883")

# What a person does about it, by the beginning of the SQLSTATE; the longest that fits counts.
REMEDIES = {
    "08": "see whether the server and the network are up",
    "25006": "the server or the database is read-only: find the primary, or end the maintenance",
    "28": "mend the login, or pg_hba.conf",
    "40": "nothing: it is tried again",
    "42501": "grant the role what it lacks: ingest migrate --grant-to ROLE",
    "42P01": "bring the schema up to date: ingest migrate",
    "42703": "bring the schema up to date: ingest migrate",
    "53100": "make room on PostgreSQL's disk",
    "53200": "give PostgreSQL more memory",
    "53300": "raise max_connections, or end idle sessions",
    "53": "see what PostgreSQL lacks",
    "55P03": "find who holds the lock in pg_locks, and end it",
    "57014": "raise statement_timeout_s, or find what slows the database down",
    "57": "nothing, if PostgreSQL is being restarted",
    "58": "see PostgreSQL's log: its disk or its files are damaged",
    "XX001": "a table is damaged: see PostgreSQL's log, restore or repair it before anything else",
    "XX002": "an index is damaged: REINDEX it (the message names it)",
    "XX": "see PostgreSQL's log: it met a fault of its own",
    "P0": "see PostgreSQL's log: a trigger or function that is not ours refused the statement",
}


def remedy(state: str) -> str:
    """What to do, in a few words; empty where nothing better than the error's own text is known."""
    for length in (5, 3, 2):
        if (words := REMEDIES.get(state[:length])) is not None:
            return words
    return "see PostgreSQL's log" if state else ""
