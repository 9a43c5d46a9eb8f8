"""Which commands are taken over HTTP, in which versions, and with which parameters; the words are PuppetDB's."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from ingest.front.refusal import Refusal

# The oldest version of each that PuppetDB takes. The queue itself takes older ones.
COMMANDS = {
    "configure expiration": 1,
    "replace catalog": 6,
    "replace catalog inputs": 1,
    "replace facts": 4,
    "store report": 5,
    "deactivate node": 3,
}
REQUIRED = ("certname", "version", "command")
ALLOWED = frozenset({*REQUIRED, "checksum", "secondsToWaitForCompletion", "producer-timestamp"})
WAIT_S_MAX = 600.0
_VERSION = re.compile(r"-?[0-9]{1,9}")


class Command(NamedTuple):
    name: str
    version: int
    certname: str
    producer_timestamp: str  # may be empty
    wait_s: float


def read_command(parameters: Mapping[str, Any]) -> Command:
    """Raises Refusal, 400."""
    name = str(parameters.get("command") or "").replace("_", " ")
    certname = parameters.get("certname")
    missing = [one for one in REQUIRED if parameters.get(one) is None]
    if missing:
        raise refused(name, certname, f"Command is missing required parameters: {', '.join(missing)}.")
    if invalid := sorted(set(parameters) - ALLOWED):
        raise refused(name, certname, f"Command has invalid parameters: {', '.join(invalid)[:500]}.")
    if not isinstance(certname, str) or not certname.strip():
        raise refused(name, certname, "Certname must be a non-empty string.")
    if name not in COMMANDS:
        raise refused(name, certname, f"Command must be one of: {', '.join(sorted(COMMANDS))}.")
    version = _version(parameters["version"])
    if version is None:
        raise refused(name, certname, "Version must be a valid integer.")
    if version < COMMANDS[name]:
        raise refused(
            name,
            certname,
            f'Version {version} of command "{name}" is retired. The minimum supported version is {COMMANDS[name]}.',
        )
    timestamp = str(parameters.get("producer-timestamp") or "")
    return Command(
        name,
        version,
        certname,
        timestamp,
        _wait_s(parameters.get("secondsToWaitForCompletion"), name, certname),
    )


def refused(name: str, certname: object, text: str) -> Refusal:
    shown = json.dumps(name[:200]) if name else "nil"
    whose = json.dumps(certname[:200]) if isinstance(certname, str) else "nil"
    return Refusal(400, f"Command {shown} for certname {whose} is invalid. {text}", is_json=True)


def _version(given: object) -> int | None:
    text = str(given)
    return int(text) if _VERSION.fullmatch(text) else None


def _wait_s(given: object, name: str, certname: str) -> float:
    if given is None:
        return 0.0
    try:
        found = float(str(given))
    except ValueError:
        found = float("nan")
    if not found >= 0:
        raise refused(name, certname, "secondsToWaitForCompletion must be a number.")
    return min(found, WAIT_S_MAX)
