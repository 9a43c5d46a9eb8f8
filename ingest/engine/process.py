"""What the processes have in common: names, the start, the end, CPU time."""

from __future__ import annotations

import gc
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import structlog

from ingest.config.settings import Config
from ingest.engine.kinds import declare_metrics
from ingest.engine.memory import give_back
from ingest.errors import IngestError
from ingest.ipc.control import ChildChannels
from ingest.ipc.names import METRICS_TABLE, tree_names
from ingest.ipc.process_metrics import MetricsTable, ProcessMetrics
from ingest.observe.log import configure, set_level


class Ended(Exception):  # the regular way out of a loop
    """The supervisor said "stop"."""


def process_names(config: Config) -> list[str]:
    """Every child's name; its place in this list is its row of metrics and its entry of what is in flight."""
    return tree_names(config.workers, config.writers)


def reloaded(detail: str) -> Config:
    """The settings that came with the order "reload"; the log's level is changed at once."""
    config = msgspec.json.decode(detail, type=Config)
    set_level(config.log_level)
    return config


def cpu_s(pid: int) -> float:
    """CPU seconds of a process so far, in nanosecond steps; /proc/PID/stat has steps of ten milliseconds, more than
    most catalogs take. 0 for one that has ended."""
    try:
        # Source: Linux, include/linux/posix-timers_types.h: clock 2 (scheduler time) of the process ~pid.
        return time.clock_gettime((~pid << 3) | 2)
    except OSError:
        return 0.0


@contextmanager
def start_process(config: Config, name: str, channels: ChildChannels) -> Iterator[ProcessMetrics]:
    """Signals, logging, wiring; then the caller's loop; then an orderly exit."""
    # The supervisor decides about signals: a terminal sends them to the whole group.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    configure(config.log_format, config.log_level, process=name)
    try:
        channels.until_go()
        declare_metrics()
        row = MetricsTable(channels.memory[METRICS_TABLE]).row(process_names(config).index(name))
        give_back()  # what the imports needed for a moment
        # What was imported lives as long as the process, and what a message leaves behind has no cycles: looking
        # for garbage at every 700 new objects costs a tenth of the decoding.
        gc.freeze()
        gc.set_threshold(50_000, 20, 100)
        channels.report("ready")
        yield row
    except (Ended, EOFError):
        pass  # told to stop, or the supervisor is gone
    except IngestError as error:
        channels.report("failed", str(error))
        structlog.get_logger().error("process_failed", reason=str(error))
        os._exit(1)
