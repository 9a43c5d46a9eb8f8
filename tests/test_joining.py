"""``ingest config puppet``: this machine's Puppet publishes to the engine that runs here, and nothing else of it changes."""

from __future__ import annotations

import stat
from pathlib import Path

import msgspec
import psycopg
import pytest
from click.testing import CliRunner

from ingest.cli.main import cli
from ingest.config.loading import load
from ingest.config.puppet_conf import read_puppet_conf, with_publishing
from ingest.config.settings import Config
from ingest.embedded.broker.producers import FILE, producers_login, public_place, source_of_producers
from ingest.embedded.postgresql import embedded_database
from ingest.engine.run import admit_collectors, prepare_database
from ingest.engine.running import told_of
from ingest.errors import Misconfigured
from lab.servers import free_port

SWITCHES = ["storeconfigs = true", "storeconfigs_backend = catalog_queue"]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", ["[main]", *SWITCHES, "reports = store,catalog_queue"]),
        ("[main]\nserver = p\n", ["[main]", *SWITCHES, "reports = store,catalog_queue", "server = p"]),
        ("[agent]\nserver = p\n", ["[main]", *SWITCHES, "reports = store,catalog_queue", "", "[agent]", "server = p"]),
        ("[main]\nstoreconfigs = false\n", ["[main]", *SWITCHES, "reports = store,catalog_queue"]),
        ("[main]\n[server]\nreports = http , log\n", ["[main]", *SWITCHES, "[server]", "reports = http,log,catalog_queue"]),
        ("[main]\nreports = none\n", ["[main]", *SWITCHES, "reports = catalog_queue"]),
        ("# ours\n[main]\n# kept\n", ["# ours", "[main]", *SWITCHES, "reports = store,catalog_queue", "# kept"]),
    ],
)  # fmt: skip
def test_publishing_is_switched_on_beside_what_stands_there(before: str, after: list[str]) -> None:
    """Once: the second time there is nothing to change."""
    changed = with_publishing(before, Path("puppet.conf"))
    assert changed.splitlines() == after
    assert with_publishing(changed, Path("puppet.conf")) == changed


def test_another_backend_is_not_replaced() -> None:
    """Whoever has one takes it out by hand: more than this file names it."""
    with pytest.raises(Misconfigured, match="storeconfigs_backend = puppetdb"):
        with_publishing("[server]\nstoreconfigs_backend = puppetdb\n", Path("puppet.conf"))


@pytest.fixture
def engine_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path / "run"))
    monkeypatch.chdir(tmp_path)
    config = Config(queue_source="stomp://ingest:secret@127.0.0.1:4", data_dir=str(tmp_path / "data"))
    producers_login(Path(config.data_dir))
    return config


def test_puppet_gets_the_login_that_may_only_send(engine_of_its_own: Config, tmp_path: Path) -> None:
    """Not the engine's; in a file for Puppet alone; with the queues that the engine takes from."""
    confdir = tmp_path / "puppet"
    confdir.mkdir()
    (confdir / "puppet.conf").write_text("[main]\nserver = puppet.example.com\n")
    source = source_of_producers(engine_of_its_own)
    with told_of(engine_of_its_own, source):
        done = CliRunner().invoke(cli, ["config", "puppet", str(confdir)])
    assert done.exit_code == 0, done.output
    file = confdir / "catalog_queue.conf"
    assert stat.S_IMODE(file.stat().st_mode) & 0o007 == 0
    assert read_puppet_conf(file)["queue_source"] == source
    assert source.startswith("stomp://puppet:")
    password = (tmp_path / "data" / FILE).read_text().strip().partition(":")[2]
    assert password not in done.output
    assert load({}, {}, puppet_conf=file).config.destinations == engine_of_its_own.destinations
    assert "storeconfigs = true" in (confdir / "puppet.conf").read_text()
    assert "embedded_database_port" in done.output  # collectors cannot ask it


@pytest.mark.server
def test_collectors_get_a_login_that_may_only_read_the_views(
    engine_of_its_own: Config, tmp_path: Path
) -> None:
    """Over TCP, where that has a port; nobody else comes that way, and the second start changes nothing."""
    (tmp_path / "puppet").mkdir()
    config = msgspec.structs.replace(engine_of_its_own, embedded_database_port=free_port())
    with embedded_database(tmp_path / "data" / "postgresql", port=config.embedded_database_port) as own:
        config = msgspec.structs.replace(config, database=own)
        prepare_database(config)
        conninfo = admit_collectors(config)
        assert admit_collectors(config) == conninfo
        with told_of(config, source_of_producers(config), conninfo):
            assert CliRunner().invoke(cli, ["config", "puppet", str(tmp_path / "puppet")]).exit_code == 0
        found = read_puppet_conf(tmp_path / "puppet" / "catalog_queue.conf")["database"]
        with psycopg.connect(found) as connection:
            assert connection.execute("SELECT count(*) FROM exported_resources").fetchone() == (0,)
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute("SELECT * FROM nodes")
        with pytest.raises(psycopg.OperationalError, match="no pg_hba"):
            psycopg.connect(found, user="postgres")
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(found, password="wrong")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [(["nowhere"], "nowhere is not a directory"), (["."], "no engine runs here")],
)
def test_what_it_cannot_know_is_asked_for(
    arguments: list[str], named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line; nothing is written."""
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path / "run"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Misconfigured, match=named):
        CliRunner().invoke(cli, ["config", "puppet", *arguments], catch_exceptions=False)
    assert not list(tmp_path.iterdir())


def test_a_password_that_somebody_wrote_there_counts(engine_of_its_own: Config) -> None:
    """It is percent-encoded where it has to be; a line that is none is told of."""
    file = Path(engine_of_its_own.data_dir) / FILE
    file.write_text("pm-1:a/b@c\n")
    assert source_of_producers(engine_of_its_own) == "stomp://pm-1:a%2Fb%40c@127.0.0.1:4"
    file.write_text("secret\n")
    with pytest.raises(Misconfigured, match="USER:PASSWORD"):
        producers_login(Path(engine_of_its_own.data_dir))


@pytest.mark.parametrize(
    ("settings", "setting"),
    [
        ({"embedded_broker_listen": "61612"}, "--embedded-broker-listen"),
        ({"embedded_broker_listen": "0.0.0.0:61612"}, "--embedded-broker-cert-file"),
        (
            {"embedded_broker_listen": "[::]:61612", "embedded_broker_cert_file": "nowhere"},
            "--embedded-broker-cert-file",
        ),
    ],
)
def test_others_are_let_in_with_tls_alone(settings: dict[str, str], setting: str) -> None:
    """Told before anything is started."""
    with pytest.raises(Misconfigured) as caught:
        public_place(Config(**settings))  # type: ignore[arg-type]
    assert caught.value.setting == setting
