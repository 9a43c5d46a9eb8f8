"""``ingest doctor`` finds each of many prepared mistakes, and says what to do."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from ingest.config.settings import Config
from ingest.engine.examination import clock_finding, examine_all
from ingest.engine.finding import Finding, State
from ingest.engine.running import told_of
from ingest.engine.surroundings import Surroundings
from lab.brokers import EmbeddedTLS
from lab.certificates import Certificates
from lab.servers import PgBouncer, Postgres, embedded_broker, free_port

HEALTHY = Surroundings(
    free_bytes=lambda _: 10**12,
    descriptors_max=lambda: 65536,
    cores=lambda: 64,
    memory_bytes=lambda: 64 * 2**30,
    toml_file=Path("nowhere.toml"),
)
CONFIG = Config(metrics_port=0)


def findings(config: Config, surroundings: Surroundings = HEALTHY) -> list[Finding]:
    """Not that the tests' own server runs without fsync: that is a test of its own."""
    found = [found for found in examine_all(config, surroundings) if found.state in (State.WRONG, State.AWAY)]
    return [finding for finding in found if finding.what != "durability"]


def the_one(config: Config, surroundings: Surroundings = HEALTHY) -> Finding:
    """What is wrong; nothing else is."""
    found = findings(config, surroundings)
    assert len(found) == 1, found
    assert found[0].remedy
    assert "\n" not in found[0].text + found[0].remedy
    return found[0]


@pytest.fixture(autouse=True)
def _in_an_empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("PGPASSFILE", "PGPASSWORD"):
        monkeypatch.delenv(name, raising=False)


# The database


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """A server that asks for passwords, of roles and databases with a mistake each."""
    directory = Path(tempfile.mkdtemp(prefix="ingest-postgresql-"))
    directory.chmod(0o755)
    server = Postgres(directory)
    hba = server.data / "pg_hba.conf"
    hba.write_text("host forbidden all 127.0.0.1/32 reject\nhost all postgres,plain,readonly,few all trust\n"
                   "host all stranger all reject\nhost all all all scram-sha-256\n")  # fmt: skip
    server.start()
    for statement in (
        "CREATE ROLE engine LOGIN PASSWORD 'right'",
        "CREATE ROLE plain LOGIN",
        "CREATE ROLE readonly LOGIN",
        "ALTER ROLE readonly SET default_transaction_read_only = on",
        "CREATE ROLE few LOGIN CONNECTION LIMIT 3",
        "CREATE ROLE nologin PASSWORD 'right'",
        "CREATE DATABASE ascii ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0",
        "CREATE DATABASE good",
        "CREATE DATABASE forbidden",
    ):
        server.execute("postgres", statement)
    yield server
    server.stop()
    shutil.rmtree(directory)


@pytest.mark.parametrize(
    ("conninfo", "said", "remedy"),
    [
        ("user=engine dbname=good password=wrong", "password authentication failed", "passfile"),
        ("user=engine dbname=good", "no password supplied", "passfile=FILE"),
        ("user=stranger dbname=good", "pg_hba.conf", "pg_hba.conf"),
        ("user=nologin dbname=good password=right", "not permitted to log in", "LOGIN"),
        ("user=postgres dbname=nowhere", 'database "nowhere" does not exist', "createdb"),
        ("user=postgres dbname=ascii", "SQL_ASCII", "ENCODING 'UTF8'"),
        ("user=readonly dbname=good", "read-only", "default_transaction_read_only = off"),
    ],
)
def test_a_mistake_in_the_login_or_the_database(
    guarded: Postgres, conninfo: str, said: str, remedy: str
) -> None:
    """Wrong password, none, refused by pg_hba.conf, may not log in, not there, wrong encoding, read-only."""
    config = msgspec.structs.replace(CONFIG, database=f"host=127.0.0.1 port={guarded.port} {conninfo}")
    found = the_one(config)
    assert found.what == "database"
    assert said in found.text
    assert remedy in found.remedy
    assert "right" not in found.text.split()


def test_a_role_without_rights(postgres: Postgres, database: str) -> None:
    """It may log in and nothing else: the command that grants is named, with the role."""
    postgres.execute("postgres", "DROP ROLE IF EXISTS unarmed")
    postgres.execute("postgres", "CREATE ROLE unarmed LOGIN")
    name = database.rpartition("=")[2]
    found = the_one(msgspec.structs.replace(CONFIG, database=postgres.conninfo(name, "unarmed")))
    assert "--grant-to" in found.remedy


def test_a_role_with_half_of_its_rights(postgres: Postgres, database: str) -> None:
    """After an upgrade that brought new tables: they are named."""
    postgres.execute("postgres", "DROP ROLE IF EXISTS halfway")
    postgres.execute("postgres", "CREATE ROLE halfway LOGIN")
    name = database.rpartition("=")[2]
    granted = subprocess.run(
        [sys.executable, "-m", "ingest", "migrate", "--grant-to", "halfway", "--database", database],
        check=False, capture_output=True,
    )  # fmt: skip
    assert granted.returncode == 0, granted.stderr
    config = msgspec.structs.replace(CONFIG, database=postgres.conninfo(name, "halfway"))
    assert findings(config) == []
    postgres.execute(name, "REVOKE INSERT ON quarantine, node_facts FROM halfway")
    found = the_one(config)
    assert (found.what, found.remedy) == (
        "rights",
        "as the owner of the schema: ingest migrate --grant-to halfway",
    )
    assert "node_facts, quarantine" in found.text
    postgres.execute(name, "DROP OWNED BY halfway")


def test_an_old_schema_that_shall_not_be_migrated(postgres: Postgres, database: str) -> None:
    """And a newer one than this program."""
    name = database.rpartition("=")[2]
    postgres.execute(name, "DELETE FROM schema_migrations WHERE number > 3")
    config = msgspec.structs.replace(CONFIG, database=database, migrate=False)
    assert "ingest migrate" in the_one(config).remedy
    assert findings(msgspec.structs.replace(config, migrate=True)) == []
    postgres.execute(name, "INSERT INTO schema_migrations (number, name) VALUES (9999, 'future')")
    assert "newer program" in the_one(config).remedy


def test_too_few_connections(guarded: Postgres) -> None:
    """The role's own limit counts as the server's does."""
    config = msgspec.structs.replace(
        CONFIG, database=f"host=127.0.0.1 port={guarded.port} user=few dbname=good", migrate=False
    )
    found = [finding for finding in findings(config) if finding.what == "connections"]
    assert len(found) == 1
    assert "max_connections" in found[0].remedy


def test_a_pooler_in_transaction_mode(tmp_path: Path, postgres: Postgres, database: str) -> None:
    """PgBouncer's pool_mode is named."""
    directory = Path(tempfile.mkdtemp(prefix="ingest-pgbouncer-"))
    pooler = PgBouncer(directory, postgres, pool_mode="transaction", max_client_conn=20)
    try:
        found = the_one(
            msgspec.structs.replace(CONFIG, database=pooler.conninfo(database.rpartition("=")[2]))
        )
    finally:
        pooler.stop()
        shutil.rmtree(directory)
    assert "pool_mode = session" in found.remedy


def test_a_server_without_fsync(database: str) -> None:
    """What was acknowledged would be gone after a crash; the tests' own server is one."""
    found = list(examine_all(msgspec.structs.replace(CONFIG, database=database), HEALTHY))
    assert [finding.what for finding in found if finding.state is State.WRONG] == ["durability"]


def test_a_database_that_is_away() -> None:
    """Another exit code than for what is wrong."""
    found = the_one(msgspec.structs.replace(CONFIG, database=f"host=127.0.0.1 port={free_port()} dbname=x"))
    assert found.state is State.AWAY
    assert "start PostgreSQL" in found.remedy


def test_a_wrong_clock(database: str) -> None:
    """Ours or the server's: how far, which way, and how they are set."""
    config = msgspec.structs.replace(CONFIG, database=database)
    for shift_s, word in ((-90, "behind"), (90, "ahead of")):
        late = HEALTHY._replace(now_s=lambda shift_s=shift_s: time.time() + shift_s)
        (found,) = [finding for finding in findings(config, late) if finding.what == "clock"]
        assert word in found.text
        assert "NTP" in found.remedy


@pytest.mark.parametrize(
    ("ahead_s", "late_s", "state"),
    [(0, 0, "ok"), (0.9, 0, "ok"), (2, 0, "note"), (2, 1.5, "ok"), (-2, 0, "note"), (6, 0, "wrong"), (-6, 0, "wrong"),
     (6, 3, "note")],
)  # fmt: skip
def test_a_slow_answer_is_no_wrong_clock(ahead_s: float, late_s: float, state: str) -> None:
    """The server read its clock at some time between the question and the answer."""
    assert clock_finding(ahead_s, late_s).state == state


# The broker


@contextmanager
def answering(answer: bytes | None) -> Iterator[int]:
    """A port at which everybody gets these bytes; None: nothing at all."""
    listener = socket.create_server(("127.0.0.1", 0))
    kept = []

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            kept.append(client)
            if answer is not None:
                client.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()
        for client in kept:
            client.close()


@pytest.mark.parametrize(
    ("answer", "remedy"),
    [
        (None, "rabbitmq-plugins enable rabbitmq_stomp"),
        (b"AMQP\x00\x00\x09\x01", "rabbitmq-plugins enable rabbitmq_stomp"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n\0", "STOMP listener"),
        (b"ERROR\nmessage:Bad CONNECT\n\nAccess refused for user 'u'\n\0", "rabbitmqctl change_password"),
    ],
    ids=["silent", "amqp", "http", "login"],
)
def test_a_port_that_is_no_brokers(answer: bytes | None, remedy: str) -> None:
    """The plugin is missing, the port is another protocol's, the login is refused."""
    with answering(answer) as port:
        found = the_one(
            msgspec.structs.replace(
                CONFIG, queue_source=f"stomp://u:p@127.0.0.1:{port}", connect_timeout_s=0.3
            )
        )
    assert found.what == "broker"
    assert remedy in found.remedy


def test_a_broker_that_is_away() -> None:
    """Nobody listens: the plugin is thought of, too."""
    found = the_one(msgspec.structs.replace(CONFIG, queue_source=f"stomp://127.0.0.1:{free_port()}"))
    assert found.state is State.AWAY
    assert "rabbitmq_stomp" in found.remedy


def test_every_broker_of_a_list_is_looked_at() -> None:
    """The engine is content with the first; the second is needed when that is away."""
    with embedded_broker() as url:
        config = msgspec.structs.replace(CONFIG, queue_source=f"{url},stomp://127.0.0.1:{free_port()}")
        assert the_one(config).state is State.AWAY


@pytest.mark.parametrize(("version", "notes"), [("3.13.7", 0), ("4.0.5", 1), ("4", 1), ("five", 0)])
def test_a_queue_with_a_delivery_limit(version: str, notes: int) -> None:
    """RabbitMQ 4 drops what was delivered too often: the policy that raises the limit is written out."""
    with answering(f"CONNECTED\nversion:1.2\nserver:RabbitMQ/{version}\n\n\0".encode()) as port:
        config = msgspec.structs.replace(CONFIG, queue_source=f"stomp://127.0.0.1:{port}")
        found = [finding for finding in examine_all(config, HEALTHY) if finding.state is State.NOTE]
    assert len(found) == notes
    assert all("delivery-limit" in finding.remedy and "^catalog$" in finding.remedy for finding in found)


def test_a_certificate_of_an_unknown_authority(tmp_path: Path) -> None:
    """tls_ca_file is named; and a name that the certificate does not have."""
    certificates = Certificates(tmp_path)
    broker = EmbeddedTLS(certificates)
    try:
        broker.start()
        config = msgspec.structs.replace(
            CONFIG, queue_source=broker.tls_url(), tls_ca_file=str(certificates.other_ca_file)
        )
        assert "tls_ca_file" in the_one(config).remedy
        config = msgspec.structs.replace(config, tls_ca_file=str(certificates.ca_file))
        assert findings(config) == []
        other = msgspec.structs.replace(
            config, queue_source=broker.tls_url().replace("localhost", "127.0.0.1")
        )
        assert "as its certificate does" in the_one(other).remedy
    finally:
        broker.remove()


# This machine


def test_a_password_file_that_others_can_read(tmp_path: Path) -> None:
    """Of the broker, of the database, a key, and ingest.toml itself where a password stands in it."""
    file = tmp_path / "secret"
    file.write_text("geheim\n")
    file.chmod(0o644)
    (tmp_path / "plain.toml").write_text('workers = 2\n# queue_source = "stomp://u:p@h"\n')
    (tmp_path / "ingest.toml").write_text('queue_source = "stomp://u:p@h"\n')
    (tmp_path / "plain.toml").chmod(0o644)
    (tmp_path / "ingest.toml").chmod(0o644)
    for change in ({"queue_password_file": str(file)}, {"tls_key_file": str(file)}, {"ssl_key": str(file)}):
        found = the_one(msgspec.structs.replace(CONFIG, **change))
        assert found.remedy == f"chmod 0600 {file}"
        assert found.setting.lstrip("-").replace("-", "_") in change
    assert "others can read" in the_one(CONFIG, HEALTHY._replace(toml_file=tmp_path / "ingest.toml")).text
    assert findings(CONFIG, HEALTHY._replace(toml_file=tmp_path / "plain.toml")) == []
    file.chmod(0o600)
    assert findings(msgspec.structs.replace(CONFIG, queue_password_file=str(file))) == []


def test_a_passfile_that_libpq_will_not_use(tmp_path: Path) -> None:
    """It ignores one that others can read, without a word."""
    file = tmp_path / "pass file"
    file.write_text("*:*:*:*:geheim\n")
    file.chmod(0o640)
    config = msgspec.structs.replace(CONFIG, database=f"host=127.0.0.1 port={free_port()} passfile='{file}'")
    found = findings(config)
    assert [finding.what for finding in found] == ["files", "database"]
    assert "libpq does not use" in found[0].text


@pytest.mark.parametrize("change", ["queue_password_file", "tls_key_file", "ssl_key"])
def test_a_password_file_that_cannot_be_read(tmp_path: Path, change: str) -> None:
    """Not there, or another user's: LoadCredential is thought of."""
    found = the_one(msgspec.structs.replace(CONFIG, **{change: str(tmp_path / "nowhere")}))  # type: ignore[arg-type]
    assert "LoadCredential" in found.remedy
    if os.geteuid() == 0:
        return
    (tmp_path / "shut").write_text("x")
    (tmp_path / "shut").chmod(0)
    assert (
        "Permission denied"
        in the_one(msgspec.structs.replace(CONFIG, **{change: str(tmp_path / "shut")})).text
    )  # type: ignore[arg-type]


def test_a_full_disk(tmp_path: Path) -> None:
    """Before the embedded broker refuses publishers; where nothing is embedded the disk does not matter."""
    full = HEALTHY._replace(free_bytes=lambda _: 100 * 2**20)
    config = msgspec.structs.replace(CONFIG, data_dir=str(tmp_path / "data"))
    assert "make room" in the_one(config, full).remedy


def test_a_port_that_somebody_has() -> None:
    """Not an engine of ours: the setting is named."""
    with answering(None) as port:
        found = the_one(msgspec.structs.replace(CONFIG, metrics_port=port))
    assert found.setting == "--metrics-port"
    assert "ss -ltnp" in found.remedy


def test_a_port_of_the_front_that_somebody_has() -> None:
    """And one that is no address; where an engine of ours answers it is that one's own."""
    with answering(None) as port:
        found = the_one(msgspec.structs.replace(CONFIG, listen=f"127.0.0.1:{port}"))
    assert (found.what, found.setting) == ("front", "--listen")
    assert "ss -ltnp" in found.remedy
    wrong = findings(msgspec.structs.replace(CONFIG, listen="8080"))
    assert {each.setting for each in wrong} == {"--listen"}


def test_a_plan_that_is_none(tmp_path: Path) -> None:
    """What makes one is named."""
    (tmp_path / "plan.json").write_text("{}")
    found = the_one(msgspec.structs.replace(CONFIG, plan_file=str(tmp_path / "plan.json")))
    assert found.setting == "--plan-file"
    assert "ingest capacity" in found.text


@pytest.mark.parametrize("host", ["unix:/nowhere/at/all/socket", "no-such-host.invalid", "192.0.2.1"])
def test_an_address_that_cannot_be_listened_at(host: str) -> None:
    """A directory that is not there, a name that nobody knows, another machine's address."""
    assert the_one(msgspec.structs.replace(CONFIG, metrics_host=host, metrics_port=free_port())).setting in (
        "--metrics-host", "--metrics-port")  # fmt: skip


def test_too_few_descriptors() -> None:
    """A hard limit that even the engine cannot raise."""
    assert "LimitNOFILE" in the_one(CONFIG, HEALTHY._replace(descriptors_max=lambda: 256)).remedy


def test_more_memory_than_there_is() -> None:
    """Of the container, not of the host."""
    found = the_one(CONFIG, HEALTHY._replace(memory_bytes=lambda: 200 * 2**20))
    assert "MemoryMax" in found.remedy


@pytest.mark.parametrize(
    ("change", "setting"),
    [({"producers_file": "nowhere.toml"}, "--producers-file"), ({"instance": "../x"}, "--instance")],
)
def test_what_the_engine_refuses_at_its_start(change: dict[str, str], setting: str) -> None:
    """By the same functions."""
    assert the_one(msgspec.structs.replace(CONFIG, **change)).setting == setting  # type: ignore[arg-type]


# The command


def doctor(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ingest", "doctor", "--metrics-port", str(free_port()), *arguments],
        capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)},
    )  # fmt: skip


def test_the_command_says_it_to_people_and_to_programs(tmp_path: Path) -> None:
    """A line for what was looked at, one for what to do, and exit codes as of every command."""
    data = ("--data-dir", str(tmp_path))
    assert doctor(*data).returncode == 0
    away = doctor("--queue-source", f"stomp://u:geheim@127.0.0.1:{free_port()}", *data)
    assert away.returncode == 3
    assert "  do: start it" in away.stdout
    wrong = doctor(
        "--queue-password-file", "nowhere", "--queue-source", "stomp://u@127.0.0.1:1", "--json", *data
    )
    assert wrong.returncode == 2
    told = json.loads(wrong.stdout)
    assert not told["ok"]
    assert {"what", "state", "text", "remedy", "setting"} == set(told["findings"][0])
    assert "geheim" not in away.stdout + away.stderr
    assert "Traceback" not in away.stderr + wrong.stderr


def test_the_parts_of_a_running_engine_are_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database: str
) -> None:
    """Where nothing is named, those that it has started: its broker answers, its database has our schema."""
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path / "runtime"))
    with embedded_broker() as url, told_of(Config(queue_source=url, database=database, metrics_port=0)):
        done = doctor("--data-dir", str(tmp_path / "data"))
    assert "talking to the engine 'main'" in done.stderr
    assert "puppet-ingest-embedded" in done.stdout
    assert "schema " in done.stdout
    assert done.returncode == 2  # the tests' own server runs without fsync
