"""Whatever a site has set, the same state is stored and read, or the database is refused at the start."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from ingest.core.delivery.work import Outcome
from ingest.errors import Misconfigured
from ingest.store.capacity import tables
from ingest.store.connection import Connection, connect, require_writable
from ingest.store.housekeeping import collect_garbage, expire_nodes
from ingest.store.migrate import migrate, require_current
from ingest.store.session_settings import LIMITS, RELIED_ON, at_least_on
from lab.servers import Postgres, postgresql_versions
from lab.store_model import Pipeline, expected, resource, stored, wire_body

_numbers = itertools.count()
SITE = "site"  # the role that the engine logs in as here

PARAMETERS = {
    "content": "grüß dich, Straße",
    "numbers": [1.1, 1e300, 2**60],
    "null": None,
    "backslash": "a\\b'c",
}
BODIES = [
    wire_body("a.example.com", 1, [resource("Straße", parameters=PARAMETERS), resource("/b", tags=["null", "ü"])]),
    wire_body("ü.example.com", 1, [resource("key", type_="Sshkey", exported=True, parameters=PARAMETERS)]),
    wire_body("a.example.com", 1499, [resource("Straße", parameters=PARAMETERS | {"content": "ß"})]),
    wire_body("a.example.com", 2999, [resource("Straße", parameters=PARAMETERS | {"content": "ß"})]),
]  # fmt: skip
# Tables that hold what was sent, as text, without ids and the times of arrival.
STATE = """
SELECT (SELECT json_agg(x ORDER BY x::text) FROM (
            SELECT certname, producer_timestamp AT TIME ZONE 'UTC' AS at, version, transaction_uuid, environment, producer,
                   resources FROM public.node_catalogs) x)::text,
       (SELECT json_agg(x ORDER BY x::text) FROM (
            SELECT certname, type, title, tags, parameters, file, line FROM public.node_resources) x)::text,
       (SELECT json_agg(encode(digest, 'hex') ORDER BY digest) FROM public.resources)::text
"""


class Site:
    """A database of its own, and a role that logs in to it; ``statements`` are what the site has set."""

    def __init__(self, server: Postgres, *statements: str, options: str = "") -> None:
        self.server, self.name = server, f"site_{next(_numbers)}"
        server.execute(
            "postgres", f"CREATE DATABASE {self.name} ENCODING 'UTF8' TEMPLATE template0 {options}"
        )
        self.role = f"{SITE}_{self.name}"
        server.execute("postgres", f"CREATE ROLE {self.role} LOGIN SUPERUSER")
        for statement in statements:
            server.execute(self.name, statement.format(db=self.name, role=self.role))
        self.conninfo = server.conninfo(self.name, self.role)

    def close(self) -> None:
        self.server.execute("postgres", f"DROP DATABASE {self.name} WITH (FORCE)")
        self.server.execute("postgres", f"DROP ROLE {self.role}")


MakeSite = Callable[..., Site]


@pytest.fixture
def make_site(postgres: Postgres) -> Iterator[MakeSite]:
    made: list[Site] = []

    def make(*statements: str, server: Postgres = postgres, options: str = "") -> Site:
        made.append(Site(server, *statements, options=options))
        return made[-1]

    yield make
    for site in made:
        site.close()


def run(conninfo: str) -> None:
    """What an engine does: migrates, stores, finds catalogs unchanged, keeps house; and reads back all of it."""
    with connect(conninfo) as opened:
        migrate(opened)
    with connect(conninfo) as opened:
        require_current(opened)
        require_writable(opened)
        pipeline = Pipeline(opened)
        assert [pipeline.take(body) for body in BODIES] == [[Outcome.STORED]] * 3 + [[Outcome.UNCHANGED]]
        assert collect_garbage(opened).deleted["resources"] == 2
        assert expire_nodes(opened, timedelta(days=36500)) == []
        for body in BODIES[1], BODIES[3]:
            assert stored(opened, expected(body)["certname"]) == expected(body)


def state(server: Postgres, database: str) -> Any:
    with psycopg.connect(
        server.conninfo(database), client_encoding="UTF8", options="-c search_path=public"
    ) as opened:
        return opened.execute(STATE).fetchone()


@pytest.fixture(scope="module")
def plain(postgres: Postgres) -> Iterator[Any]:
    """The state where nobody has set anything."""
    site = Site(postgres)
    run(site.conninfo)
    yield state(postgres, site.name)
    site.close()


DATABASE = "ALTER DATABASE {db} SET "
ROLE = "ALTER ROLE {role} SET "
SETTINGS = [
    DATABASE + "client_encoding = 'LATIN1'",
    ROLE + "client_encoding = 'SQL_ASCII'",
    ROLE + "client_encoding = 'EUC_JP'",
    DATABASE + "datestyle = 'German'",
    ROLE + "datestyle = 'SQL, DMY'",
    ROLE + "datestyle = 'Postgres, YMD'",
    DATABASE + "intervalstyle = 'sql_standard'",
    ROLE + "intervalstyle = 'iso_8601'",
    DATABASE + "timezone = 'Asia/Kathmandu'",
    ROLE + "timezone = 'America/St_Johns'",
    DATABASE + "default_transaction_isolation = 'repeatable read'",
    ROLE + "default_transaction_isolation = 'serializable'",
    ROLE + "default_transaction_deferrable = on",
    DATABASE + "synchronous_commit = off",
    ROLE + "synchronous_commit = local",
    ROLE + "extra_float_digits = -15",
    DATABASE + "bytea_output = 'escape'",
    DATABASE + "standard_conforming_strings = off",
    ROLE + "array_nulls = off",
    ROLE + "transform_null_equals = on",
    ROLE + "row_security = off",
    ROLE + "statement_timeout = 900",
    DATABASE + "lock_timeout = 1",
    ROLE + "idle_in_transaction_session_timeout = 1",
    ROLE + "exit_on_error = on",
    ROLE + "quote_all_identifiers = on",
    ROLE + "backslash_quote = on",
    ROLE + "search_path = pg_catalog, public",
    ROLE + "search_path = \"$user\", 'no such schema', public",
    "CREATE SCHEMA storeconfigs;" + ROLE + "search_path = public, storeconfigs",
    ROLE + "enable_seqscan = off;" + ROLE + "enable_indexscan = off;" + ROLE + "plan_cache_mode = force_generic_plan",
    ROLE + "default_table_access_method = 'heap';" + ROLE + "check_function_bodies = off",
    ROLE + "jit = on;" + ROLE + "jit_above_cost = 0",
]  # fmt: skip


@pytest.mark.parametrize("statement", SETTINGS)
def test_what_a_role_or_a_database_has_set_changes_nothing(
    make_site: MakeSite, postgres: Postgres, plain: Any, statement: str
) -> None:
    """The same rows, and the same catalogs when they are read back."""
    site = make_site(*statement.split(";"))
    run(site.conninfo)
    assert state(postgres, site.name) == plain


def test_all_settings_at_once(make_site: MakeSite, postgres: Postgres, plain: Any) -> None:
    """They do not help each other either."""
    site = make_site(*itertools.chain.from_iterable(s.split(";") for s in SETTINGS if "SCHEMA" not in s))
    run(site.conninfo)
    assert state(postgres, site.name) == plain


ENVIRONMENT = [
    {"PGCLIENTENCODING": "LATIN1"},
    {"PGCLIENTENCODING": "no such encoding"},
    {"PGDATESTYLE": "SQL, DMY"},
    {"PGDATESTYLE": "no such style"},
    {"PGTZ": "Asia/Kathmandu"},
    {"PGTZ": "no such zone"},
    {"PGGEQO": "nonsense"},
    {
        "PGOPTIONS": "-c search_path=pg_catalog -c default_transaction_isolation=serializable -c datestyle=German"
    },
    {"PGOPTIONS": "-c no_such_setting=1"},
    {"PGAPPNAME": "somebody else"},
    {"PGSERVICE": "site"},
    {"LC_ALL": "de_DE.ISO-8859-1", "LANG": "C"},
]


@pytest.mark.parametrize("environment", ENVIRONMENT, ids=str)
def test_what_the_environment_says_changes_nothing(
    make_site: MakeSite, postgres: Postgres, plain: Any, environment: dict[str, str], monkeypatch: Any, tmp_path: Path
) -> None:  # fmt: skip
    """Variables of libpq and a service file that say what sessions shall be like."""
    site = make_site()
    (tmp_path / "pg_service.conf").write_text(
        "[site]\nclient_encoding=LATIN1\noptions=-c datestyle=German -c search_path=pg_catalog\n"
    )
    monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "pg_service.conf"))
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    run(site.conninfo)
    assert state(postgres, site.name) == plain


@pytest.mark.parametrize("settings", ["-c datestyle=German", "-c client_encoding=LATIN1", "-c timezone=Asia/Tokyo",
                                      "-c default_transaction_isolation=serializable", "-c bytea_output=escape"])  # fmt: skip
def test_what_the_conninfo_says_changes_nothing(
    make_site: MakeSite, postgres: Postgres, plain: Any, settings: str
) -> None:
    """Its options, and an encoding of its own."""
    site = make_site()
    run(f"{site.conninfo} client_encoding=LATIN1 options='{settings}'")
    assert state(postgres, site.name) == plain


def test_a_site_chooses_the_schema_by_its_search_path(make_site: MakeSite) -> None:
    """By the conninfo's options or the role's setting; and a role without one finds the only one there is."""
    site = make_site('CREATE SCHEMA "Our Puppet"')
    run(f"{site.conninfo} options='-c search_path=\"Our\\\\ Puppet\"'")
    for conninfo in (site.conninfo, f"{site.conninfo} options='-c search_path=pg_catalog'"):
        with connect(conninfo) as opened:
            assert opened.home == "Our Puppet"
            require_current(opened)
            assert "catalogs" in tables(opened)
    with psycopg.connect(site.conninfo) as opened_plainly:
        assert opened_plainly.execute("SELECT to_regclass('public.nodes')").fetchone() == (None,)


def test_a_search_path_that_leads_elsewhere_finds_the_tables_all_the_same(make_site: MakeSite) -> None:
    """A role that got another path later does not get another, empty set of tables; where there are two, it says which."""
    site = make_site("CREATE SCHEMA elsewhere")
    run(site.conninfo)
    for path in ("elsewhere", "pg_catalog", "storeconfigs", "nowhere", ""):
        site.server.execute(site.name, f"ALTER ROLE {site.role} SET search_path = '{path}'")
        with connect(site.conninfo) as opened:
            assert opened.home == "public", path
            assert migrate(opened) == 0
    for table in ("schema_migrations", "catalogs", "catalog_resources", "content_state"):
        site.server.execute(site.name, f"CREATE TABLE elsewhere.{table} (LIKE public.{table})")
    with pytest.raises(Misconfigured, match="several schemas"):
        connect(site.conninfo)
    site.server.execute(site.name, f"ALTER ROLE {site.role} SET search_path = public")
    with connect(site.conninfo) as opened:
        assert opened.home == "public"


def test_a_path_that_names_no_schema_is_refused_by_migrate(make_site: MakeSite) -> None:
    """There is none to create the tables in."""
    site = make_site(ROLE + "search_path = nowhere")
    with connect(site.conninfo) as opened, pytest.raises(Misconfigured, match="search_path"):
        migrate(opened)


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1", "EUC_JP", "WIN1252", "ISO_8859_5", "LATIN9"])
def test_a_database_that_cannot_hold_utf_8_is_refused_at_the_start(postgres: Postgres, encoding: str) -> None:
    """By its name and with the remedy, before anything is migrated; by a command, in one line."""
    name = f"encoding_{next(_numbers)}"
    postgres.execute(
        "postgres", f"CREATE DATABASE {name} ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0"
    )
    try:
        with pytest.raises(Misconfigured, match=rf"{name} has the encoding .* ENCODING 'UTF8'"):
            connect(postgres.conninfo(name))
        if encoding == "SQL_ASCII":
            for command in (["migrate"], ["show", "x"], ["quarantine", "list"], ["gc"]):
                done = ingest(postgres.conninfo(name), *command)
                assert done.returncode == 2
                assert "SQL_ASCII" in done.stderr
                assert done.stderr.count("\n") == 1
    finally:
        postgres.execute("postgres", f"DROP DATABASE {name}")


@pytest.mark.parametrize("statement", [DATABASE, ROLE])
def test_a_read_only_database_is_refused_at_the_start_and_can_be_read(
    make_site: MakeSite, statement: str
) -> None:
    """What writes says why it does not; what only reads, reads."""
    site = make_site()
    run(site.conninfo)
    freeze = (statement + "default_transaction_read_only = on").format(db=site.name, role=site.role)
    site.server.execute("postgres", freeze)
    for command in (
        ["migrate"],
        ["gc"],
        ["quarantine", "drop", "1"],
        ["run", "--queue-source", "stomp://127.0.0.1:9"],
    ):
        done = ingest(site.conninfo, *command)
        assert done.returncode == 2, done.stderr
        assert "default_transaction_read_only" in done.stderr
    for command in (
        ["show", "a.example.com"],
        ["quarantine", "list"],
        ["query", "exported", "--type", "Sshkey"],
    ):
        done = ingest(site.conninfo, *command)
        assert done.returncode == 0, done.stderr


def test_the_time_limits_are_ours(make_site: MakeSite) -> None:
    """Not the site's, shorter or longer."""
    site = make_site(ROLE + "statement_timeout = 900", DATABASE + "lock_timeout = '1h'")
    with connect(site.conninfo, statement_timeout_s=7, lock_timeout_s=0.5) as opened:
        for name, value in (("statement_timeout", "7s"), ("lock_timeout", "500ms")):
            row = opened.execute("SELECT current_setting(%s)", [name]).fetchone()
            assert row == (value,)


def test_replica_mode_is_refused(make_site: MakeSite) -> None:
    """Foreign keys would not be kept, and no session but a superuser's can leave it."""
    site = make_site(ROLE + "session_replication_role = replica")
    with pytest.raises(Misconfigured, match="session_replication_role"):
        connect(site.conninfo)


GERMAN = [
    {"PGDATESTYLE": "SQL, DMY"},
    {"PGDATESTYLE": "German"},
    {"PGTZ": "Asia/Tokyo", "PGCLIENTENCODING": "LATIN1"},
]


@pytest.mark.parametrize("environment", GERMAN, ids=str)
def test_show_and_quarantine_answer_under_any_datestyle(
    make_site: MakeSite, environment: dict[str, str]
) -> None:
    """What they print is the same, to the byte."""
    site = make_site(DATABASE + "datestyle = 'German'", ROLE + "timezone = 'Asia/Tokyo'")
    run(site.conninfo)
    site.server.execute(
        site.name, "INSERT INTO quarantine (digest, reason, detail, headers, body_bytes, last_seen) "
        "VALUES ('x', 'r', 'd', '{}', 1, '2026-02-01 00:00Z')"
    )  # fmt: skip
    for command, says in (
        (["show", "a.example.com"], '"producer_timestamp":"2026-01-03T01:59:00'),
        (["show", "a.example.com"], "Straße"),
        (["quarantine", "list"], "2026-02-01 00:00:00"),
        (["quarantine", "show", "1"], "2026-02-01"),
    ):
        done = ingest(site.conninfo, *command, environment=environment)
        assert done.returncode == 0, done.stderr
        assert says in done.stdout


def test_garbage_collection_spares_what_was_taken_up_again_under_any_isolation(make_site: MakeSite) -> None:
    """It waits for a gap between writers, and looks again under a snapshot taken after it."""
    for level in ("repeatable read", "serializable"):
        site = make_site(DATABASE + f"default_transaction_isolation = '{level}'")
        with connect(site.conninfo) as opened:
            migrate(opened)
        with connect(site.conninfo) as writing, connect(site.conninfo) as collecting:
            pipeline = Pipeline(writing)
            key = resource("shared", type_="Sshkey", exported=True)
            pipeline.take(wire_body("a", 1, [resource("/a"), key]))
            pipeline.take(wire_body("a", 2, [resource("/a")]))
            waited: list[float] = []
            taken_up_again = wire_body("b", 3, [resource("/b"), key])

            def pause(
                seconds: float,
                waited: list[float] = waited,
                pipeline: Pipeline = pipeline,
                taken_up_again: bytes = taken_up_again,
            ) -> None:
                if not waited:
                    busy.rollback()  # the gap
                    assert pipeline.take(taken_up_again) == [Outcome.STORED]
                waited.append(seconds)

            with psycopg.connect(site.conninfo) as busy:
                busy.execute(
                    "SELECT pg_advisory_xact_lock_shared(464379)"
                )  # as a writer of the version before
                collect_garbage(collecting, pause=pause)
            assert waited
            found = stored(collecting, "b")["resources"]
            assert sorted(r["title"] for r in found) == ["/b", "shared"]


@pytest.mark.parametrize(
    ("site", "ours"),
    [("off", "on"), ("local", "on"), ("remote_write", "on"), ("on", "on"), ("remote_apply", "remote_apply")],
)
def test_a_commit_waits_for_the_disk_and_for_as_much_as_the_site_asks_for(
    make_site: MakeSite, site: str, ours: str
) -> None:
    """Never less than on."""
    assert at_least_on(site) == ours
    made = make_site(ROLE + f"synchronous_commit = {site}")
    with connect(made.conninfo) as opened:
        assert opened.execute("SHOW synchronous_commit").fetchone() == (ours,)


def test_what_was_settled_is_there_after_a_crash(tmp_path: Path) -> None:
    """With synchronous_commit off for the role, a WAL writer that is slow, and PostgreSQL killed all at once."""
    directory = Path(tempfile.mkdtemp(prefix="ingest-crash-"))
    directory.chmod(0o755)
    server = Postgres(directory)
    server.start(wal_writer_delay="10s", fsync="on")
    try:
        server.execute("postgres", "ALTER ROLE postgres SET synchronous_commit = off")
        with connect(server.conninfo("postgres")) as opened:
            migrate(opened)
            pipeline = Pipeline(opened)
            names = [f"n{n}.example.com" for n in range(20)]
            for name in names:
                assert pipeline.take(wire_body(name, 1, [resource(f"/{name}")])) == [Outcome.STORED]
            server.stop(immediate=True)
        server.start()
        with connect(server.conninfo("postgres")) as opened:
            for name in names:
                assert stored(opened, name)["certname"] == name
            # Its locks were emptied by the crash: they come back.
            assert Pipeline(opened).take(wire_body(names[0], 2, [resource("/x")])) == [Outcome.STORED]
    finally:
        server.stop()
        shutil.rmtree(directory)


@pytest.mark.parametrize("name", [*RELIED_ON, *LIMITS, "statement_timeout", "lock_timeout"])
def test_every_setting_that_is_pinned_is_one_of_postgresql_s(connection: Connection, name: str) -> None:
    """And one that any role may set."""
    row = connection.execute("SELECT context FROM pg_settings WHERE name = %s", [name]).fetchone()
    assert row == ("user",)


@pytest.mark.parametrize("version", postgresql_versions())
def test_every_version_at_hand_stores_the_same(version: int, plain: Any) -> None:
    """PostgreSQL 14 to 18: those that are installed, as they come and with all the settings above; older ones are refused."""
    directory = Path(tempfile.mkdtemp(prefix=f"ingest-postgresql-{version}-"))
    directory.chmod(0o755)
    server = Postgres(directory, postgresql_versions()[version])
    server.start()
    try:
        for number, statements in enumerate(
            ([], [s for s in SETTINGS if "SCHEMA" not in s and ";" not in s])
        ):
            site = Site(server, *statements)
            if version < 14:
                with pytest.raises(Misconfigured, match="too old"):
                    connect(site.conninfo)
                continue
            run(site.conninfo)
            assert state(server, site.name) == plain, number
            with connect(site.conninfo) as opened:
                assert opened.pinned.home.is_shared == (version < 15)
    finally:
        server.stop()
        shutil.rmtree(directory)


def ingest(
    database: str, *command: str, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ingest", *command, "--database", database],
        capture_output=True, encoding="utf-8", env=os.environ | {"PYTHONUTF8": "1"} | (environment or {}), check=False,
    )  # fmt: skip
