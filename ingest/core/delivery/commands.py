"""PuppetDB's commands, and what to say of one that is not understood."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ingest.errors import Rejected

Scalar = str | int | float | None
# Where senders put it: as the first member of the body.
FIRST_MEMBER = re.compile(rb'\s*\{\s*"command"\s*:\s*"([\w ]{1,100})"')

# Source: PuppetDB, "Commands endpoint", with the versions that its senders of ten years had.
PUPPETDB: Mapping[str, range] = {
    "replace catalog": range(4, 10),
    "replace facts": range(2, 6),
    "store report": range(3, 9),
    "deactivate node": range(1, 4),
    "configure expiration": range(1, 2),
    "replace catalog inputs": range(1, 2),
}


def plain_name(given: str) -> str:
    """A command's name as PuppetDB's documentation has it; headers and old senders write underscores."""
    return given.replace("_", " ").strip()


def require_version(name: str, given: Scalar, versions: range) -> int:
    """The version as a number. Raises Rejected when it is none of these."""
    version = version_number(given)
    if version not in versions:
        raise Rejected(
            "unsupported_version",
            f"'{name}' version {str(given)[:20]} is not one of {versions[0]} - {versions[-1]}",
        )
    return version


def version_number(given: Scalar) -> int:
    """-1: it is not a number."""
    try:
        return -1 if given is None else int(given)
    except (ValueError, OverflowError):
        return -1


def refusal(name: str, given: Scalar) -> Rejected:
    """Of a command that no kind of message here has. Raises Rejected for a version that PuppetDB does not have."""
    if name not in PUPPETDB:
        return Rejected("unknown_command", f"the command {name[:60]!r} is not one of PuppetDB's")
    require_version(name, given, PUPPETDB[name])
    return Rejected("unsupported_command", f"the command '{name}' is not stored yet")
