"""Errors, named after what their catcher should do.

IngestError
├── Rejected       this message can never be stored: quarantine it, then acknowledge it
├── Unavailable    the broker or the database cannot be reached: acknowledge nothing, wait, try again
│   └── Unsure     it is stored or it is not, or a failover may take it back: the same, and ask the other hosts first
├── Misconfigured  a setting is wrong: say which one, stop
└── Refused        what was asked of the engine makes no sense now: say why, stop

``except Rejected`` and ``except Unavailable`` appear on the path of a message; the other two end a
command with one line on standard error and an exit code from ``EXIT_CODES``.
"""

from __future__ import annotations


class IngestError(Exception):
    """Base of everything this package raises on purpose."""


class Rejected(IngestError):
    """This message can never be stored: quarantine it, then acknowledge it.

    ``reason`` is a short stable word for counters and filters (``unreadable``, ``duplicate_resource``);
    the text says what is wrong with which part, never with a parameter's value in it.
    """

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason
        self.text = text


class Unavailable(IngestError):
    """The broker or the database cannot be reached: acknowledge nothing, wait, try again."""


class Unsure(Unavailable):
    """It is stored or it is not, or a failover may take it back: acknowledge nothing, ask the other hosts first."""


class Misconfigured(IngestError):
    """A setting is wrong. ``setting`` is the name a person would change (``--database``)."""

    def __init__(self, setting: str, text: str) -> None:
        super().__init__(text)
        self.setting = setting
        self.text = text

    def __str__(self) -> str:
        return f"{self.setting}: {self.text}"


class Refused(IngestError):
    """The request cannot be carried out as things are (a newer schema, an unknown node)."""
