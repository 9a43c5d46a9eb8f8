"""What a process of the engine loads, and what it does without."""

from __future__ import annotations

import subprocess
import sys

import pytest


def said(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("process", ["receiver", "decoder"])
def test_a_process_loads_no_library_that_it_never_uses(process: str) -> None:
    """Together these take 3 MiB of every one."""
    program = (
        f"import sys, ingest.engine.child, ingest.engine.{process}\n"
        "from ingest.engine.decoders import Decoders\n"
        "from ingest.core.delivery.decoding import DecoderSettings\n"
        "Decoders(DecoderSettings(cache_bytes_max=1 << 20))\n"
        "print(*({'asyncio.events', 'rich', 'colorama', 'typing_extensions', 'psycopg'} & sys.modules.keys()))\n"
    )
    assert said(program).split() == []


@pytest.mark.parametrize(
    ("use", "answer"),
    [
        ("import rich.text\nprint(rich.text.Text('it'))", "it"),
        ("import typing_extensions\nprint(typing_extensions.Self)", "typing.Self"),
        ("import asyncio\nasync def it(): return 'it'\nprint(asyncio.run(it()))", "it"),
        ("from asyncio import run\nasync def it(): return 'it'\nprint(run(it()))", "it"),
        ("import asyncio.events\nprint(asyncio.events.__name__)", "asyncio.events"),
        ("from asyncio import events\nprint(events.__name__)", "asyncio.events"),
        (
            "import asyncio\nasync def it(): await structlog.get_logger().ainfo('it')\nasyncio.run(it())",
            "it",
        ),
    ],
)
def test_who_uses_one_gets_it_all_the_same(use: str, answer: str) -> None:
    """In whatever way it is imported; structlog's own use of it too."""
    begin = "from ingest.observe.lean import load_libraries\nload_libraries()\nimport structlog\n"
    assert answer in said(begin + use)


def test_libraries_that_are_loaded_already_stay_as_they_are() -> None:
    """``ingest run`` has parsed its settings by then, and a program that embeds us has its own."""
    program = (
        "import asyncio, structlog, msgspec, sys\nbefore = dict(sys.modules)\n"
        "from ingest.observe.lean import load_libraries\nload_libraries()\n"
        "print(all(sys.modules[name] is module for name, module in before.items()))"
    )
    assert said(program).strip() == "True"
