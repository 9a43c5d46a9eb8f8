"""Puppet, a broker, the engine and a database, joined; counts what is published so that it can wait for it."""

from __future__ import annotations

import itertools
from contextlib import ExitStack
from pathlib import Path

from lab.engine import Engine
from lab.servers import Postgres
from tests.puppet.site import Answer, Site

_numbers = itertools.count()


class World:
    """Everything is ready after construction; ``stack`` ends it."""

    def __init__(self, stack: ExitStack, postgres: Postgres, broker: str, directory: Path, code: str) -> None:
        name = f"puppet_{next(_numbers)}"
        postgres.execute("postgres", f"CREATE DATABASE {name} TEMPLATE template_ingest")
        stack.callback(postgres.execute, "postgres", f"DROP DATABASE {name} WITH (FORCE)")
        self.database = postgres.conninfo(name)
        self.broker = broker
        self.engine = Engine(
            broker, self.database, "--workers", "1", "--writers", "1", log=directory / "engine.log"
        )
        stack.callback(self.engine.kill)
        self.site = Site(directory / "site")
        stack.callback(self.site.stop)
        self.site.code(code)
        self.site.configure(broker=broker, database=self.database)
        self.site.start()
        self.engine.wait_ready()
        self.published = 0

    def compile(self, node: str, **facts: object) -> Answer:
        """Compiles; the catalog is on its way, not yet stored."""
        self.published += 1
        return self.site.compile(node, **facts)

    def deactivate(self, node: str) -> None:
        self.published += 1
        answer = self.site.ask(do="deactivate", node=node)
        assert "error" not in answer, answer

    def settle(self) -> dict[str, float]:
        """Until the engine has settled everything that was published; its outcomes."""
        self.site.flush()
        return self.engine.wait_settled(self.published)
