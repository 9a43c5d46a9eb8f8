"""The database under the collectors: away, slow, back again, with the rights of a reader; and what SQL finds."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from ingest.store.connection import connect
from ingest.store.migrate import grant
from lab.servers import Postgres
from tests.puppet import temper
from tests.puppet.site import Site, problems, refs

CODE = "notify { 'own': }\nNotify <<| |>>\n"


def conninfo(url: str) -> str:
    host, port = url.removeprefix("stomp://").split(":")
    return f"host={host} port={port} dbname=puppet user=puppet"


@pytest.fixture
def no_broker() -> Iterator[str]:
    with temper.broker_that(None) as url:
        yield url


@pytest.mark.parametrize("behaviour", [None, temper.mute, temper.resets], ids=["refused", "mute", "resets"])
def test_a_database_that_is_away_fails_the_compile_unless_told_otherwise(
    site: Site, no_broker: str, behaviour: temper.Behaviour | None
) -> None:
    """dbunavailable = fail: an error that names type and node. = empty: a catalog without collected resources, and
    one warning for the whole outage."""
    site.code(CODE)
    with temper.broker_that(behaviour) as url:
        limits = {"dbconnect_timeout_s": "1s", "dbstatement_timeout_s": "200ms", "flush_timeout_s": 0}
        site.configure(broker=no_broker, database=conninfo(url), **limits)
        site.start()
        answer = site.ask(do="compile", node="node")
        assert "Could not collect exported Notify for node" in answer["error"]
        site.configure(broker=no_broker, database=conninfo(url), dbunavailable="empty", **limits)
        site.ask(do="reset")
        logged = []
        for _ in range(3):
            answer = site.compile("node")
            assert refs(answer, "Notify") == ["Notify[own]"]
            logged += [text for text in problems(answer) if "dbunavailable" in text]
        assert len(logged) == 1


def test_a_database_that_came_back_is_used_again(
    site: Site, no_broker: str, postgres: Postgres, database: str
) -> None:
    """Also when the connection of before died while it lay idle: the next compile notices nothing."""
    site.code(CODE)
    site.configure(broker=no_broker, database=database, flush_timeout_s=0)
    site.start()
    site.compile("node")
    postgres.execute(
        "postgres",
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'catalog_queue'",
    )
    assert refs(site.compile("node"), "Notify") == ["Notify[own]"]


def test_a_lock_costs_the_statement_timeout_and_no_more(site: Site, no_broker: str, database: str) -> None:
    """Somebody holds the tables: the collector gives up and says which setting was the limit."""
    site.code(CODE)
    site.configure(broker=no_broker, database=database, dbstatement_timeout_s="200ms", flush_timeout_s=0)
    site.start()
    with psycopg.connect(database) as other:
        other.execute("LOCK TABLE nodes IN ACCESS EXCLUSIVE MODE")
        answer = site.ask(do="compile", node="node")
        other.rollback()
    assert "dbstatement_timeout_s" in answer["error"]


def test_a_collector_needs_no_more_than_the_readers_role(
    site: Site, no_broker: str, postgres: Postgres, database: str
) -> None:
    """What 'ingest migrate --grant-read-to' gives is enough; without it the error says what is refused."""
    name = database.rpartition("dbname=")[2]
    postgres.execute("postgres", f"CREATE ROLE reader_of_{name} LOGIN")
    site.code(CODE)
    site.configure(
        broker=no_broker, database=postgres.conninfo(name, user=f"reader_of_{name}"), flush_timeout_s=0
    )
    site.start()
    assert "permission denied" in site.ask(do="compile", node="node")["error"]
    with connect(database) as owner:
        grant(owner, None, f"reader_of_{name}")
    assert refs(site.compile("node"), "Notify") == ["Notify[own]"]


# By title: tags and parameters.
ROWS = {
    "plain": (["a"], {"x": "1"}),
    "number": (["b"], {"x": 1}),
    "list": (["a", "b"], {"x": ["1", 1, {"k": 1, "l": 2}]}),
    "null": ([], {"x": None}),
    "none": ([], {}),
    "hash": ([], {"x": {"k": 1, "l": 2}}),
    "true": ([], {"x": True}),
}
QUERIES = {
    # what a collector asks (as Puppet hands it over): titles it finds
    "nothing": (None, set(ROWS)),
    "text": (["x", "==", "1"], {"plain", "list"}),
    "number": (["x", "==", 1], {"number", "list"}),
    "boolean": (["x", "==", True], {"true"}),
    "not text": (["x", "!=", "1"], set(ROWS) - {"plain"}),
    "undef": (["x", "==", None], {"null", "none"}),
    "not undef": (["x", "!=", None], set(ROWS) - {"null", "none"}),
    "whole hash": (["x", "==", {"k": 1, "l": 2}], {"hash", "list"}),
    "part of a hash": (["x", "==", {"k": 1}], set()),
    "whole list": (["x", "==", ["1", 1, {"k": 1, "l": 2}]], {"list"}),
    "part of a list": (["x", "==", ["1", 1]], set()),
    "tag": (["tag", "==", "A"], {"plain", "list"}),
    "not tag": (["tag", "!=", "a"], set(ROWS) - {"plain", "list"}),
    "one of two tags": (["tag", "==", ["b", "z"]], {"number", "list"}),
    "and": ([["tag", "==", "a"], "and", ["tag", "==", "b"]], {"list"}),
    "or": ([["title", "==", "true"], "or", ["tag", "==", "b"]], {"true", "number", "list"}),
    "nested": (
        [[["tag", "==", "a"], "or", ["tag", "==", "b"]], "and", ["title", "!=", "list"]],
        {"plain", "number"},
    ),
    "injection": (["title", "==", "' OR true --"], set()),
    "question mark": (["x?", "==", "?"], set()),
    "nul": (["x", "==", "\0"], set()),
}  # fmt: skip

ASK = """
require 'json'
%w[settings database query row].each { |part| require "puppet_x/catalog_queue/#{part}" }
Q = PuppetX::CatalogQueue
database = Q::Database.new(Q::Settings.new(JSON.parse(ARGV[0])))
answers = JSON.parse(ARGV[1]).map do |name, filter|
  query = Q::Query.new('Thing', 'me', filter)
  [name, database.select(query.sql, query.values).map { |row| Q::Row.from_columns(*row).to_a.first(3) }]
end
puts JSON.generate(answers.to_h)
"""


def test_every_query_finds_what_it_should_in_a_real_database(
    puppet_installed: None, database: str, postgres: Postgres
) -> None:
    """All operators over all JSON types; the asking node, other types and other forms of a value are never found."""
    with psycopg.connect(database, autocommit=True) as made:
        made.execute("CREATE SCHEMA stand_in")
        made.execute(
            "CREATE TABLE stand_in.exported_resources (certname text, type text, title text, tags text[], "
            "parameters jsonb, exact bytea)"
        )
        for title, (tags, parameters) in ROWS.items():
            for certname, type_ in (("b", "Thing"), ("a", "Thing"), ("me", "Thing"), ("a", "Other")):
                made.execute(
                    "INSERT INTO stand_in.exported_resources VALUES (%s, %s, %s, %s, %s)",
                    [certname, type_, title, tags, json.dumps(parameters)],
                )
    name = database.rpartition("dbname=")[2]
    settings = {"dbport": str(postgres.port), "dbname": name, "dbuser": "postgres", "dbschema": "stand_in"}
    done = subprocess.run(
        ["ruby", "-w", "-I", Path(__file__).parents[2] / "puppet" / "lib", "-e", ASK, json.dumps(settings),
         json.dumps({name: query for name, (query, _) in QUERIES.items()})],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    for query, (_, titles) in QUERIES.items():
        assert found[query] == [[node, "Thing", title] for node in "ab" for title in sorted(titles)], query
