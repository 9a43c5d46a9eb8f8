"""Whose fault an error of PostgreSQL is: what to do about each SQLSTATE.

Only what is on the list below is refused because of the row. Everything else, known or not, waits and settles nothing: a
message that waits is late, one that is quarantined for a fault of the server's is lost.
"""

from __future__ import annotations

import re

import psycopg

from ingest.errors import Misconfigured, Rejected, Unavailable

# PostgreSQL would refuse this row on any day. Source: PostgreSQL documentation, appendix A.
# Not among them: unique and foreign key violations (23505, 23503). Our statements meet what is there with ON CONFLICT and
# under a node's lock, so they tell of somebody else's hand in the tables or of a damaged index, never of a value.
BECAUSE_OF_THE_ROW = {
    "22000": "data_exception",
    "22001": "string_data_right_truncation",
    "22003": "numeric_value_out_of_range",
    "22004": "null_value_not_allowed",
    "22007": "invalid_datetime_format",
    "22008": "datetime_field_overflow",
    "22009": "invalid_time_zone_displacement_value",
    "2200F": "zero_length_character_string",
    "22021": "character_not_in_repertoire",
    "22024": "unterminated_c_string",
    "2202E": "array_subscript_error",
    "22030": "duplicate_json_object_key_value",
    "22031": "invalid_argument_for_sql_json_datetime_function",
    "22032": "invalid_json_text",
    "22P02": "invalid_text_representation",
    "22P03": "invalid_binary_representation",
    "22P04": "bad_copy_file_format",
    "22P05": "untranslatable_character",
    "23502": "not_null_violation",
    "23514": "check_violation",
    "23P01": "exclusion_violation",
    "54000": "program_limit_exceeded",
    "54001": "statement_too_complex",
}

# What a person has to mend before any statement can succeed.
_SETTING = ("28", "3D000", "42501", "3F000", "42P01", "42703", "42883")

GRANT_AGAIN = "grant it again: 'ingest migrate --grant-to ROLE', as the owner of the schema"
_UNKNOWN = "nothing is settled until it is mended"
# What to do, for whoever reads the log: the first that fits.
_REMEDIES = (
    ("XX001", "a page is damaged: look at the disk, restore the table from a backup or a standby"),
    ("XX002", "an index is damaged: REINDEX it (amcheck finds others), and look at the disk"),
    ("XX", "PostgreSQL has met something that it should not: its own log tells more"),
    ("53100", "the disk is full: make room"),
    ("53200", "PostgreSQL has no memory left: lower work_mem or max_connections, or give it more"),
    ("53300", "too many connections: raise max_connections, or end some"),
    ("53", "PostgreSQL lacks something: its own log tells what"),
    ("58", "the operating system fails PostgreSQL: look at its disk and its log"),
    ("28", "mend the login, or pg_hba.conf"),
    ("55P03", "find who holds the lock in pg_locks, and end it"),
    ("57014", "raise statement_timeout_s, or find what slows the database down"),
    ("P0", "a trigger or function that is not ours refused the statement: " + _UNKNOWN),
    ("42501", GRANT_AGAIN),
    ("42", "the schema is not what this program needs: 'ingest migrate', as its owner"),
    ("25006", "the server or the session is read-only: name the primary, or end what made it so"),
    ("23", "somebody else writes to these tables, or an index is damaged: amcheck tells"),
)
# A connection that ends, a server that stops, a lock that is late: it passes by itself, and says so.
_PASSING = ("", "08", "0A", "25", "40", "55", "57")


def translate(error: psycopg.Error) -> Unavailable | Rejected | Misconfigured:
    """The plan for an error of PostgreSQL: wait and try again, quarantine, or change a setting."""
    state = error.sqlstate or ""
    # Not its details and context: they tell the values of a row, and a value may be a secret.
    text = one_line(error)
    if state in BECAUSE_OF_THE_ROW:
        return Rejected("refused_by_postgresql", error.diag.message_primary or "no reason given")
    if isinstance(error, psycopg.DataError) and not state:
        return Rejected("refused_by_postgresql", "psycopg cannot encode it")
    if state.startswith(_SETTING) or _is_login(error):
        return Misconfigured("--database", _with_remedy(text, state))
    if isinstance(error, psycopg.ProgrammingError) and not state:
        return Misconfigured("--database", text)  # a conninfo that cannot be parsed
    return Unavailable(_with_remedy(text, state))


def one_line(error: psycopg.Error) -> str:
    return " ".join((error.diag.message_primary or str(error)).split())


def _with_remedy(text: str, state: str) -> str:
    for beginning, remedy in _REMEDIES:
        if state.startswith(beginning):
            return f"{text} ({state}): {remedy}"
    return text if state[:2] in _PASSING else f"{text} ({state}): {_UNKNOWN}"


def _is_login(error: psycopg.Error) -> bool:
    # A failed connection carries no SQLSTATE in psycopg; the server's words are all there is.
    text = str(error)
    return isinstance(error, psycopg.OperationalError) and (
        "password authentication failed" in text
        or "no password supplied" in text
        or "no pg_hba.conf entry" in text
        or ('role "' in text and "does not exist" in text)
        or ('database "' in text and "does not exist" in text)
        or "is not permitted to log in" in text
        or "unsupported startup parameter" in text
        or "invalid value for parameter" in text
        or "invalid port number" in text
        or "could not match" in text  # ports or addresses to hosts
        or "invalid integer value" in text  # and whatever else of a conninfo libpq cannot use
        or re.search(r"invalid \w+ value: ", text) is not None
        or "definition of service" in text
        or "service file" in text
    )
