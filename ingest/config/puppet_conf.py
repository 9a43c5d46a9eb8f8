"""Takes queue and database from a puppet.conf, or the module's catalog_queue.conf, by the names Puppet has for them."""

from __future__ import annotations

import re
from pathlib import Path

from ingest.errors import Misconfigured

# A later section's value wins: the special one over the server's over the general one.
SECTIONS = ("main", "master", "server", "puppetmasterd", "queue")
_LINE = re.compile(r"^\s*(\w+)\s*=\s*(.*?)\s*$")
_SECTION = re.compile(r"^\s*\[(\w+)\]\s*$")
# Theirs and ours. The destinations are the Puppet module catalog_queue's.
_SAME = {
    "queue_type": "queue_type",
    "queue_source": "queue_source",
    "queue_destination": "destination",
    "facts_destination": "facts_destination",
    "reports_destination": "reports_destination",
    "thin_storeconfigs": "thin_storeconfigs",
}
_POSTGRESQL = ("postgresql", "auto", "pg", "jdbc")  # the last three are the module's words
_DATABASE = {
    "dbserver": "host",
    "dbport": "port",
    "dbname": "dbname",
    "dbuser": "user",
    "dbpassword": "password",
}


def read_puppet_conf(file: Path) -> dict[str, str]:
    """Our settings from Puppet's. Raises Misconfigured when the file cannot be read or contradicts them."""
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise Misconfigured("--puppet-conf", f"{file} is not UTF-8") from error
    except OSError as error:
        raise Misconfigured("--puppet-conf", f"{file}: {error.strerror or error}") from error
    values = _values(text)
    if values.get("async_storeconfigs", "true").lower() == "false":
        raise Misconfigured(
            "--puppet-conf", f"{file} has async_storeconfigs = false: that Puppet server publishes nothing"
        )
    found = {ours: values[theirs] for theirs, ours in _SAME.items() if theirs in values}
    parts = {ours: values[theirs] for theirs, ours in _DATABASE.items() if theirs in values}
    adapter = values.get("dbadapter", "postgresql")
    if parts and adapter not in _POSTGRESQL:
        raise Misconfigured(
            "--puppet-conf", f"{file} has dbadapter = {adapter}: this engine stores in PostgreSQL only"
        )
    if parts:
        found["database"] = " ".join(f"{name}={_quoted(value)}" for name, value in parts.items())
    return found


def _quoted(value: str) -> str:
    """A conninfo value. Source: PostgreSQL documentation, "Keyword/Value Connection Strings"."""
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _values(text: str) -> dict[str, str]:
    by_section: dict[str, dict[str, str]] = {}
    section = "main"
    for line in text.splitlines():
        if match := _SECTION.match(line):
            section = match[1].lower()
        elif not line.lstrip().startswith("#") and (match := _LINE.match(line)):
            value = re.sub(r"^(['\"])(.*)\1$", r"\2", match[2])
            by_section.setdefault(section, {})[match[1]] = value
    values: dict[str, str] = {}
    for name in SECTIONS:
        values |= by_section.get(name, {})
    return values
