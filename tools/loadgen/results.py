"""The raw results of a run: JSON lines that the report is made from, also when the run was interrupted."""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from ingest.errors import Misconfigured

VERSION = 2


class About(msgspec.Struct):
    """The run as a whole. Times are in seconds; those of the fleet's clock are ``speed`` times as many."""

    version: int
    at: str
    scenario: str
    nodes: int
    interval_s: float  # of the fleet's clock
    speed: float
    duration_s: float  # of the fleet's clock
    formats: tuple[str, ...]
    mix: dict[str, float]
    seed: int
    templates: str | None
    broker: str
    poll_s: float | None  # how late the watcher may see a catalog; None where nobody watched
    mean_bytes: float
    kinds: tuple[str, ...] = ("catalog",)


class Sent(msgspec.Struct, array_like=True, frozen=True):
    """One message. Times are real seconds from the start of the run."""

    node: int
    run: int
    kind: str
    due_s: float
    sent_s: float
    next_s: float  # when the node asks again
    bytes: int
    what: str = "catalog"


class Stored(msgspec.Struct, array_like=True, frozen=True):
    """The watcher saw that this run of the node can be queried, or that a later one took its place before."""

    node: int
    run: int
    seen_s: float
    superseded: bool = False
    what: str = "catalog"


class Ended(msgspec.Struct):
    """How the run ended. ``differences`` is None where nothing was compared."""

    interrupted: bool
    sent: int
    receipted: int
    send_s: float  # from the first to the last message
    generator_cpu_s: float
    watched_s: float  # how long after the start the watcher looked for the last time
    differences: int | None = None
    compared: int = 0


class Results:
    """A directory with run.json, sent.jsonl, stored.jsonl and ended.json."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def begin(self, about: About) -> None:
        """Raises Misconfigured when the directory has another run's results."""
        if (self.directory / "run.json").exists():
            raise Misconfigured("--output", f"{self.directory} has results already: name another directory")
        self.directory.mkdir(parents=True, exist_ok=True)
        (self.directory / "run.json").write_bytes(msgspec.json.format(msgspec.json.encode(about)) + b"\n")

    def writer(self, name: str) -> Lines:
        return Lines((self.directory / name).open("wb"))

    def end(self, ended: Ended) -> None:
        (self.directory / "ended.json").write_bytes(msgspec.json.format(msgspec.json.encode(ended)) + b"\n")

    def about(self) -> About:
        found: About = self._load("run.json", About)
        return found

    def ended(self) -> Ended | None:
        return self._load("ended.json", Ended) if (self.directory / "ended.json").exists() else None

    def sent(self) -> list[Sent]:
        return self._lines("sent.jsonl", Sent)

    def stored(self) -> list[Stored]:
        return self._lines("stored.jsonl", Stored)

    def _load(self, name: str, type_: type[Any]) -> Any:
        try:
            found = msgspec.json.decode((self.directory / name).read_bytes(), type=type_)
        except FileNotFoundError:
            raise Misconfigured("DIR", f"{self.directory} has no {name}: it is no run's result") from None
        except msgspec.DecodeError as error:
            raise Misconfigured("DIR", f"{self.directory / name}: {error}") from error
        if getattr(found, "version", VERSION) != VERSION:
            raise Misconfigured(
                "DIR", f"{self.directory} is of version {found.version}, this reads {VERSION}"
            )
        return found

    def _lines(self, name: str, type_: type[Any]) -> list[Any]:
        decoder = msgspec.json.Decoder(type_)
        found: list[Any] = []
        if not (self.directory / name).exists():
            return found  # interrupted before the clock started
        with (self.directory / name).open("rb") as file:
            for line in file:
                try:
                    found.append(decoder.decode(line))
                except msgspec.DecodeError:
                    break  # the last line of an interrupted run
        return found


class Lines:
    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._encoder = msgspec.json.Encoder()

    def write(self, entry: Sent | Stored) -> None:
        self._file.write(self._encoder.encode(entry) + b"\n")

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self._file.close()
