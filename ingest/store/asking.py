"""Which engine a lane writes for, as far as it must know for what comes again without any time."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple


class Asking(NamedTuple):
    engine: int = 0  # its number among those on one database; 0: nobody
    new_since: datetime | None = (
        None  # when it got the first message that nobody had before it; None: none yet
    )

    def has_taken_new_before(self, received_at: datetime) -> bool:
        """Whether it may have stored, before that message came again to it, what was sent after that one."""
        return self.new_since is not None and self.new_since < received_at
