"""A child and the one that started it: it does not outlive its parent, and says whether it could begin."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys

import msgspec

_PR_SET_PDEATHSIG = 1  # prctl(2)


def end_with_parent(number: signal.Signals) -> None:
    """From now on; at once where multiprocessing started it and it has lost its parent already. Others compare
    ``os.getppid()`` with what they were told."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, number)
    parent = multiprocessing.parent_process()
    if parent is not None and os.getppid() != parent.pid:
        sys.exit()


class Said(msgspec.Struct):
    """A line that a child says once: that it has begun, or for what ``reason`` not, and which ``setting`` is at fault."""

    reason: str = ""
    setting: str = ""
