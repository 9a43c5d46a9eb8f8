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


BACKEND = "catalog_queue"  # the Puppet module's name for itself
_REPORTS = re.compile(r"^(\s*reports\s*=\s*)(.*?)\s*$")
_STORECONFIGS = re.compile(r"^\s*storeconfigs\s*=")


def with_publishing(text: str, file: Path) -> str:
    """A puppet.conf, changed so that what a run sends is published, too. Raises Misconfigured where that would take the place
    of something else."""
    values = _values(text)
    backend = values.get("storeconfigs_backend", BACKEND)
    if backend != BACKEND:
        raise Misconfigured(
            "DIRECTORY",
            f"{file} has storeconfigs_backend = {backend}: take that line out first, and what else names {backend} "
            "(reports, routes.yaml)",
        )
    lines = [_published(line) for line in text.splitlines() if not _STORECONFIGS.match(line)]
    added = ["storeconfigs = true"]
    if "storeconfigs_backend" not in values:
        added.append(f"storeconfigs_backend = {BACKEND}")
    if "reports" not in values:
        added.append(f"reports = store,{BACKEND}")
    mains = [
        at for at, line in enumerate(lines) if (match := _SECTION.match(line)) and match[1].lower() == "main"
    ]
    if not mains:
        return "\n".join(["[main]", *added, "", *lines]).rstrip("\n") + "\n"
    at = mains[0] + 1
    return "\n".join([*lines[:at], *added, *lines[at:]]) + "\n"


def _published(line: str) -> str:
    """With our report processor beside those that it names."""
    match = _REPORTS.match(line)
    if match is None:
        return line
    names = [name.strip() for name in match[2].split(",") if name.strip() not in ("", "none")]
    return line if BACKEND in names else f"{match[1]}{','.join([*names, BACKEND])}"
