"""What lies in an archive, as ``puppet db export`` writes it: which file is which command, and the other way round.

    puppetdb-bak/export-metadata.json                       when, and the version of each command
    puppetdb-bak/facts/CERTNAME.json                        payloads of commands
    puppetdb-bak/catalogs/CERTNAME-HASH.json                HASH keeps several apart; nobody reads it
    puppetdb-bak/reports/, catalog_inputs/, configure_expiration/
    puppetdb-bak/deactivate_node/                           ours alone: PuppetDB passes it over

Source: PuppetDB 7.12.1, ``puppetlabs.puppetdb.export`` and ``.import``, and an archive of its own.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from ingest.core.json_text import parse_json
from ingest.core.raw_text import bytes_of
from ingest.errors import Rejected

ROOT = "puppetdb-bak"
METADATA = f"{ROOT}/export-metadata.json"
# By folder: the command, and its version in an archive of PuppetDB 7.12 and of ours.
FOLDERS = {
    "configure_expiration": ("configure expiration", 1),
    "facts": ("replace facts", 5),
    "catalogs": ("replace catalog", 9),
    "catalog_inputs": ("replace catalog inputs", 1),
    "reports": ("store report", 8),
    "deactivate_node": ("deactivate node", 3),
}
_PATH = re.compile(rf"(?:\./)?{ROOT}/([a-z_]+)/(.+)\.json", re.DOTALL)
_NEWEST = {name.replace(" ", "_"): version for name, version in FOLDERS.values()}


class Unfit(Exception):
    """A file of the archive that is no command: told of, and the rest goes on. ``reason`` is a short stable word."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class Command(NamedTuple):
    """What a file of an archive asks for. ``body`` is the message for the queue."""

    folder: str
    name: str
    certname: str
    producer_timestamp: str
    body: bytes


class Metadata:
    """The versions of an archive's commands; those of PuppetDB 7.12 until it says otherwise."""

    def __init__(self) -> None:
        self._versions: dict[str, int] = dict(_NEWEST)
        self._asked: set[str] = set()

    def version(self, command: str) -> int:
        name = command.replace(" ", "_")
        self._asked.add(name)
        return self._versions[name]

    def read(self, body: bytes) -> None:
        """Raises Unfit."""
        document = _object(body)
        versions = document.get("command_versions")
        if not isinstance(versions, dict):
            raise Unfit("metadata", "it says nothing of `command_versions`")
        for name, version in versions.items():
            if name not in self._versions:
                continue
            if not isinstance(version, int) or isinstance(version, bool):
                raise Unfit("metadata", f"the version of {name} is no number")
            if name in self._asked and version != self._versions[name]:
                raise Unfit(
                    "metadata", f"it comes after commands that it is about: {name} has version {version}"
                )
            self._versions[name] = version


def read_member(name: str, body: bytes, metadata: Metadata) -> Command | None:
    """None: the metadata. Raises Unfit, or Rejected for what is not JSON."""
    if name.removeprefix("./") == METADATA:
        metadata.read(body)
        return None
    found = _PATH.fullmatch(name)
    if found is None or found[1] not in FOLDERS:
        raise Unfit("unknown", "no part of an archive is called so")
    folder = found[1]
    document = _object(body)
    certname = document.get("certname")
    if certname is None and folder == "catalogs":
        certname = document.get("name")  # of old versions
    if not isinstance(certname, str) or not certname:
        raise Unfit("invalid", "it names no node (`certname`)")
    command, _ = FOLDERS[folder]
    head = {"command": command, "version": metadata.version(command), "certname": certname}
    timestamp = document.get("producer_timestamp")
    message = json.dumps(head).encode()[:-1] + b',"payload":' + body + b"}"
    return Command(folder, command, certname, timestamp if isinstance(timestamp, str) else "", message)


def _object(body: bytes) -> dict[str, Any]:
    document = parse_json(body)
    if not isinstance(document, dict):
        raise Rejected("invalid", "it is no JSON object")
    return document


def metadata_member(timestamp: str) -> tuple[str, bytes]:
    """(name, contents)."""
    return METADATA, encode({"timestamp": timestamp, "command_versions": _NEWEST})


def member(folder: str, payload: Mapping[str, Any]) -> tuple[str, bytes]:
    """(name, contents) of a command's payload."""
    # A slash would make a folder of a name, and ".." a way out of where somebody unpacks it.
    certname = str(payload["certname"]).replace("/", "%2F")
    if folder == "facts":
        return f"{ROOT}/facts/{certname}.json", encode(payload)
    told_apart = [
        payload.get("producer_timestamp"),
        payload.get("transaction_uuid"),
        payload.get("start_time"),
    ]
    digest = hashlib.sha1(encode(told_apart), usedforsecurity=False).hexdigest()
    return f"{ROOT}/{folder}/{certname}-{digest}.json", encode(payload)


def encode(value: Any) -> bytes:
    """JSON of whatever is stored: also text that is not UTF-8, as the bytes that it came as."""
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:
        return bytes_of(json.dumps(plain(value), ensure_ascii=False, separators=(",", ":")))


def plain(value: Any) -> Any:
    """With what was left as it is (Raw) read."""
    match value:
        case msgspec.Raw():
            return parse_json(value)
        case dict():
            return {name: plain(one) for name, one in value.items()}
        case list() | tuple():
            return [plain(one) for one in value]
    return value
