"""Clusters for the tests, in temporary directories: three RabbitMQ with a quorum queue; PostgreSQL under Patroni
and etcd with synchronous replication, and HAProxy before both. Debian's packages, in the foreground, ended by their own pids; on
loopback, or each on a machine of its own (``lab/machines.py``).

Ports lie below those that the system gives to clients: who knocks again and again at a dead port of that range can take it.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from lab.brokers import RABBITMQ
from lab.machines import Machine, Network
from lab.stomp_client import Client

PORTS = range(20000, 32000)
MEMBERS = 3
BROKER_MACHINES, DATABASE_MACHINES, ETCD_MACHINE = ("b1", "b2", "b3"), ("d1", "d2", "d3"), "e1"
HERE = Machine()
START_TIMEOUT_S = 180.0  # three Erlang machines at once on two busy cores
QUEUE = "catalog"
LIMITED, LIMITED_TIMES = "limited", 3  # another one, with a low delivery limit
DATABASE = "ingest"
POSTGRESQL = Path("/usr/lib/postgresql/15/bin")
PATRONI_TTL_S = 20  # the least that it takes; loop_wait + 2 x retry_timeout must not be more


def missing() -> str | None:
    """What a cluster lacks here."""
    if not RABBITMQ.exists():
        return "no RabbitMQ: apt-get install rabbitmq-server"
    for program in ("etcd", "patroni", "haproxy"):
        if shutil.which(program) is None:
            return f"no {program}: apt-get install etcd-server patroni haproxy"
    if not POSTGRESQL.is_dir() or os.geteuid() != 0:
        return "no PostgreSQL 15 in /usr/lib/postgresql, or not root (its members run as the user postgres)"
    return None


def low_port() -> int:
    while True:
        port = random.choice(PORTS)
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port


def ports_of(machines: Sequence[Machine], usual: int = 0) -> list[int]:
    """The same one on each, so that a name may be moved from one machine to another; different ones where all are the same."""
    if len({machine.address for machine in machines}) == 1:
        return [low_port() for _ in machines]
    return [usual or low_port()] * len(machines)


def until(condition: Callable[[], object], what: str, timeout_s: float = START_TIMEOUT_S) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not in {timeout_s:.0f} s: {what}"
        time.sleep(0.1)


class Program:
    """One server in the foreground. To be started by the main thread: it ends with the thread that started it."""

    def __init__(
        self,
        directory: Path,
        command: Sequence[str | Path],
        environment: Mapping[str, str] | None = None,
        user: str | None = None,
        machine: Machine = HERE,
    ) -> None:
        self.directory = directory
        as_user = ("--reuid", user, "--regid", user, "--clear-groups") if user else ()
        self._command = [*machine.enter, "setpriv", *as_user, "--pdeathsig", "TERM", *command]
        self._environment = {"HOME": str(directory), **(environment or {})}
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self.directory / "output").open("ab") as output:
            self.process = subprocess.Popen(
                self._command, env=os.environ | self._environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                cwd=self.directory, start_new_session=True,
            )  # fmt: skip

    def signal(self, number: signal.Signals) -> None:
        """To it and all that it has started."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        if self.process is not None:
            self.process.wait()
            self.process = None

    def stop(self, timeout_s: float = 30) -> None:
        if self.process is not None:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout_s)
            self.kill()

    def output(self) -> str:
        return (self.directory / "output").read_text(errors="replace")[-3000:]


def _dropped(queue: str) -> str:
    """Where the broker puts what it has delivered too often."""
    return f"dropped-{queue}"


class Brokers:
    """Three RabbitMQ, clustered, with two quorum queues; ``delivery_limit`` is that of ``QUEUE``."""

    def __init__(self, directory: Path, machines: Sequence[Machine], delivery_limit: int = 20) -> None:
        self.directory = directory
        self.machines = machines
        directory.mkdir()
        self.addresses = list(zip([each.address for each in machines], ports_of(machines), strict=True))
        self._epmd_port = low_port()
        self._limits = {QUEUE: delivery_limit, LIMITED: LIMITED_TIMES}
        cookie = directory / ".erlang.cookie"
        cookie.write_text(f"{random.getrandbits(64):x}")  # loopback, and gone with the test
        cookie.chmod(0o400)
        plugins = ["rabbitmq_stomp", *(["rabbitmq_management"] if len(set(machines)) > 1 else [])]
        (directory / "plugins").write_text(f"[{','.join(plugins)}].")  # at its usual port, on each machine
        (directory / "none").write_text("")
        definitions = {
            "users": [{"name": "guest", "password": "guest", "tags": "administrator"}],
            "vhosts": [{"name": "/"}],
            "permissions": [{"user": "guest", "vhost": "/", "configure": ".*", "write": ".*", "read": ".*"}],
            "policies": [
                {"vhost": "/", "name": queue, "pattern": f"^{queue}$", "apply-to": "queues", "definition":
                 {"delivery-limit": limit, "dead-letter-exchange": "", "dead-letter-routing-key": _dropped(queue)}}
                for queue, limit in self._limits.items()
            ],
        }  # fmt: skip
        (directory / "definitions.json").write_text(json.dumps(definitions))
        self._epmds = [
            Program(
                directory,
                ["epmd", "-port", str(self._epmd_port), "-address", machine.address],
                machine=machine,
            )
            for machine in dict.fromkeys(machines)
        ]  # else the first node leaves one behind
        self.nodes = [self._node(place) for place in range(MEMBERS)]

    def url(self, *order: int) -> str:
        """Of all, or of those of the given places, in this order."""
        return ",".join(
            "stomp://guest:guest@{}:{}".format(*self.addresses[place]) for place in order or range(MEMBERS)
        )

    def start(self) -> None:
        for epmd in self._epmds:
            epmd.start()
        for node in self.nodes:
            node.start()

    def wait(self) -> None:
        for place in range(MEMBERS):
            until(lambda place=place: self.lets_in(place), f"RabbitMQ {place + 1} lets in")  # type: ignore[misc]
        until(lambda: self.running() == MEMBERS, "three running nodes")
        queues = {_dropped(queue): "classic" for queue in self._limits} | dict.fromkeys(
            self._limits, "quorum"
        )
        for name, type_ in queues.items():
            with self.client(0) as client:
                client.subscribe(
                    f"/queue/{name}", **{"durable": "true", "auto-delete": "false", "x-queue-type": type_, "receipt": "r"}
                )  # fmt: skip
                assert client.frame().command == "RECEIPT"

    def lets_in(self, place: int) -> bool:
        try:
            self.client(place).close()
        except (AssertionError, OSError):
            return False
        return True

    def client(self, place: int) -> Client:
        host, port = self.addresses[place]
        return Client(port, "guest", "guest", host=host)

    def running(self) -> int:
        return int(self._control("eval", "length(rabbit_nodes:all_running()).").strip() or 0)

    def fill_disk(self, place: int, *, full: bool = True) -> None:
        """What RabbitMQ does on a disk that is nearly full: an alarm, and no publisher of the cluster gets a receipt."""
        free = "1000000GB" if full else "50MB"
        self._control("set_disk_free_limit", free, node=place)

    def dropped(self, queue: str) -> int:
        """How many messages of that queue it has delivered too often, ever."""
        for line in self._control("list_queues", "-q", "--no-table-headers", "name", "messages").splitlines():
            name, _, count = line.partition("\t")
            if name == _dropped(queue):
                return int(count)
        raise AssertionError("there is no queue for what is dropped")

    def leader(self) -> int:
        """The place of the node that leads the queue."""
        for line in self._control("list_queues", "-q", "--no-table-headers", "name", "leader").splitlines():
            name, _, node = line.partition("\t")
            if name == QUEUE:
                return int(node.removeprefix("r").partition("@")[0]) - 1
        raise AssertionError("the queue has no leader")

    def stop(self) -> None:
        for node in self.nodes:
            node.signal(signal.SIGCONT)
            node.kill()
        for epmd in self._epmds:
            epmd.kill()

    def _control(self, *arguments: str, node: int | None = None) -> str:
        """Asks the first node that answers, or that one."""
        for place in range(MEMBERS) if node is None else [node]:
            done = subprocess.run(
                [*self.machines[place].enter, RABBITMQ.with_name("rabbitmqctl"), "-n", self._name(place), *arguments],
                env=os.environ | self._shared(place), capture_output=True, text=True, check=False, timeout=60,
            )  # fmt: skip
            if done.returncode == 0:
                return done.stdout
        return ""

    def _name(self, place: int) -> str:
        return f"r{place + 1}@{self.machines[place].name}"

    def _shared(self, place: int) -> dict[str, str]:
        return {
            "HOME": str(self.directory),
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": self.machines[place].address,
            "RABBITMQ_CONF_ENV_FILE": str(self.directory / "none"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.directory / "plugins"),
        }

    def _node(self, place: int) -> Program:
        (address, port), directory = self.addresses[place], self.directory / f"r{place + 1}"
        directory.mkdir()
        lines = [
            f"listeners.tcp.default = {address}:{low_port()}",
            f"stomp.listeners.tcp.1 = {address}:{port}",
            "loopback_users = none",  # guest, from other machines
            "cluster_partition_handling = pause_minority",
            "cluster_formation.peer_discovery_backend = classic_config",
            *(f"cluster_formation.classic_config.nodes.{each} = {self._name(each - 1)}" for each in range(1, MEMBERS + 1)),
            f"load_definitions = {self.directory / 'definitions.json'}",
        ]  # fmt: skip
        (directory / "rabbitmq.conf").write_text("\n".join(lines) + "\n")
        environment = self._shared(place) | {
            "RABBITMQ_NODENAME": self._name(place),
            "RABBITMQ_DIST_PORT": str(low_port()),
            "RABBITMQ_CONFIG_FILE": str(directory / "rabbitmq"),
            "RABBITMQ_MNESIA_BASE": str(directory / "mnesia"),
            "RABBITMQ_LOG_BASE": str(directory / "log"),
            "RUNNING_UNDER_SYSTEMD": "1",  # so that the pid is the broker's, not a shell's
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none "
            f"-kernel inet_dist_use_interface {{{address.replace('.', ',')}}}",
        }
        return Program(directory, [RABBITMQ], environment, machine=self.machines[place])


class Databases:
    """Three PostgreSQL under Patroni, one of the two standbys synchronous; etcd is one node. Named by their places."""

    def __init__(
        self, directory: Path, machines: Sequence[Machine], etcd: Machine, disk_mib: int = 0
    ) -> None:
        self.directory = directory
        self.machines = machines
        self._disk_mib = disk_mib  # of each member, in memory; 0: they share the machine's
        directory.mkdir()
        directory.chmod(0o755)
        addresses = [machine.address for machine in machines]
        self.addresses = list(zip(addresses, ports_of(machines), strict=True))
        self.rest_ports = ports_of(machines, 8008)
        self._etcd_at = (etcd.address, low_port())
        (directory / "etcd").mkdir()
        urls = ("http://{}:{}".format(*self._etcd_at), f"http://{etcd.address}:{low_port()}")
        self.etcd = Program(
            directory / "etcd",
            ["etcd", "--name", "e1", "--data-dir", directory / "etcd" / "data", "--listen-client-urls", urls[0],
             "--advertise-client-urls", urls[0], "--listen-peer-urls", urls[1], "--initial-advertise-peer-urls",
             urls[1], "--initial-cluster", f"e1={urls[1]}", "--log-level", "error"],
            machine=etcd,
        )  # fmt: skip
        self.patronis = [self._member(place) for place in range(MEMBERS)]

    def conninfo(self, *order: int, target: str | None = "read-write", database: str = DATABASE) -> str:
        """Of all, or of those of the given places, in this order."""
        hosts = ",".join("{}:{}".format(*self.addresses[place]) for place in order or range(MEMBERS))
        return f"postgresql://postgres@{hosts}/{database}" + (
            f"?target_session_attrs={target}" if target else ""
        )

    def start(self) -> None:
        self.etcd.start()
        until(lambda: _answers(*self._etcd_at, "/health") == 200, "etcd answers")
        self.patronis[0].start()

    def wait(self) -> None:
        until(lambda: self.is_("primary", 0), "the first PostgreSQL is primary")
        for patroni in self.patronis[1:]:
            patroni.start()
        self.wait_whole()

    def wait_whole(self) -> None:
        """Before a fault: synchronous replication comes seconds after the members."""
        until(
            lambda: (
                sum(self.is_("primary", place) for place in range(MEMBERS)) == 1
                and sum(self.is_("synchronous", place) for place in range(MEMBERS)) == 1
                and sum(self.is_("replica", place) for place in range(MEMBERS)) == MEMBERS - 1
            ),
            "a primary, a synchronous standby and another one",
        )

    def is_(self, role: str, place: int) -> bool:
        return _answers(*self.rest(place), f"/{role}") == 200

    def rest(self, place: int) -> tuple[str, int]:
        return self.machines[place].address, self.rest_ports[place]

    def the(self, role: str) -> int:
        """The place of the one who has that role."""
        until(lambda: any(self.is_(role, place) for place in range(MEMBERS)), f"somebody is {role}")
        return next(place for place in range(MEMBERS) if self.is_(role, place))

    def postmaster(self, place: int) -> int | None:
        """Not in Patroni's process tree."""
        file = self.directory / f"m{place}" / "data" / "postmaster.pid"
        try:
            return int(file.read_text().split("\n", 1)[0])
        except (OSError, ValueError):
            return None

    def kill_postgres(self, place: int) -> None:
        """Its children end by themselves when it is gone; those that were stopped have to be let go on for that."""
        for child, pid in enumerate(self._processes(place)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT if child else signal.SIGKILL)

    def signal_postgres(self, place: int, number: signal.Signals) -> None:
        """To every process of that server, as to a machine that stops."""
        for pid in self._processes(place):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def _processes(self, place: int) -> list[int]:
        """The postmaster first; none where it does not run."""
        pid = self.postmaster(place)
        try:
            return (
                [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())] if pid else []
            )
        except OSError:
            return []

    def switchover(self) -> None:
        """To the synchronous standby, as an operator plans it."""
        leader, candidate = self.the("primary"), self.the("synchronous")
        body = json.dumps({"leader": f"m{leader}", "candidate": f"m{candidate}"}).encode()
        request = urllib.request.Request("http://{}:{}/switchover".format(*self.rest(leader)), body)
        with urllib.request.urlopen(request, timeout=60) as answer:
            assert answer.status == 200, answer.read()

    def delay_replay(self, place: int, delay: str = "0") -> None:
        """Of a standby. Patroni takes it out again where somebody else has set it."""
        patroni, file = self.patronis[place], self.directory / f"m{place}" / "patroni.json"
        told = json.loads(file.read_text())
        told["postgresql"]["recovery_conf"] = {"recovery_min_apply_delay": delay}
        file.write_text(json.dumps(told))
        assert patroni.process is not None
        patroni.process.send_signal(signal.SIGHUP)

    def fill_disk(self, place: int) -> None:
        """To the last byte; only where members have disks of their own."""
        disk = self.directory / f"m{place}"
        assert disk.is_mount()
        with (disk / "balloon").open("wb", buffering=0) as balloon, contextlib.suppress(OSError):
            while balloon.write(bytes(1 << 20)):
                pass

    def empty_disk(self, place: int) -> None:
        (self.directory / f"m{place}" / "balloon").unlink(missing_ok=True)

    def stop(self) -> None:
        for place, patroni in enumerate(self.patronis):
            patroni.signal(signal.SIGCONT)
            patroni.kill()
            self.kill_postgres(place)
        self.etcd.kill()
        for place in range(MEMBERS):
            if (self.directory / f"m{place}").is_mount():
                subprocess.run(["umount", "--lazy", self.directory / f"m{place}"], check=False)

    def _member(self, place: int) -> Program:
        directory = self.directory / f"m{place}"
        directory.mkdir()
        if self._disk_mib:
            subprocess.run(
                ["mount", "-t", "tmpfs", "-o", f"size={self._disk_mib}m", "ingest-cluster", directory],
                check=True,
            )
        shutil.chown(directory, "postgres", "postgres")
        at = "{}:{}".format(*self.addresses[place])
        rest = "{}:{}".format(*self.rest(place))
        account = {"username": "postgres", "password": "trust"}
        configuration = {
            "scope": "ingest",
            "name": f"m{place}",
            "restapi": {"listen": rest, "connect_address": rest},
            "etcd3": {"host": "{}:{}".format(*self._etcd_at)},
            "bootstrap": {
                "dcs": {
                    "ttl": PATRONI_TTL_S, "loop_wait": 5, "retry_timeout": 5, "synchronous_mode": True,
                    "maximum_lag_on_failover": 1048576,
                    "postgresql": {
                        "use_pg_rewind": True, "use_slots": True,
                        # What is killed here is processes, and those lose nothing that they gave to the system.
                        "parameters": {"wal_log_hints": "on", "fsync": "off", "max_connections": 60, "max_wal_size": "256MB"},
                    },
                },
                "initdb": [{"encoding": "UTF8"}, "data-checksums", {"auth": "trust"}],
            },
            "postgresql": {
                "listen": at, "connect_address": at, "data_dir": str(directory / "data"), "bin_dir": str(POSTGRESQL),
                "pgpass": str(directory / "pgpass"),
                "authentication": {"superuser": account, "replication": account, "rewind": account},
                "remove_data_directory_on_rewind_failure": True,
                "remove_data_directory_on_diverged_timelines": True,
                "parameters": {"unix_socket_directories": str(directory)},
                "pg_hba": ["local all all trust", "host all all all trust", "host replication all all trust"],
            },
        }  # fmt: skip
        file = directory / "patroni.json"
        file.write_text(json.dumps(configuration))
        return Program(directory, ["patroni", file], user="postgres", machine=self.machines[place])


class Cluster:
    """Both, from one temporary directory. ``own_machines``: for a process that has entered a network (``lab/machines.py``)."""

    def __init__(self, delivery_limit: int = 20, disk_mib: int = 0, *, own_machines: bool = False) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="ingest-cluster-"))
        self.directory.chmod(0o755)
        names = [*BROKER_MACHINES, *DATABASE_MACHINES, ETCD_MACHINE]
        self.network = Network(names) if own_machines else None
        places = self.network.machines if self.network else dict.fromkeys(names, HERE)
        self.brokers = Brokers(
            self.directory / "brokers", [places[name] for name in BROKER_MACHINES], delivery_limit
        )
        self.databases = Databases(
            self.directory / "databases", [places[name] for name in DATABASE_MACHINES], places[ETCD_MACHINE], disk_mib
        )  # fmt: skip
        self.haproxy: Program | None = None
        self.haproxy_ports = (low_port(), low_port())  # of the primary, and of the brokers

    def start(self) -> None:
        self.brokers.start()
        self.databases.start()
        self.databases.wait()
        self.brokers.wait()

    def start_haproxy(self) -> None:
        """Before the database and before the brokers, with us."""
        directory = self.directory / "haproxy"
        directory.mkdir(exist_ok=True)
        primary = "".join(
            f"  server m{place} {host}:{port} check port {self.databases.rest_ports[place]}\n"
            for place, (host, port) in enumerate(self.databases.addresses)
        )
        brokers = "".join(
            f"  server r{place + 1} {host}:{port} check\n"
            for place, (host, port) in enumerate(self.brokers.addresses)
        )
        (directory / "haproxy.cfg").write_text(
            _HAPROXY.format(*self.haproxy_ports, primary=primary, brokers=brokers)
        )
        self.haproxy = Program(directory, ["haproxy", "-db", "-f", directory / "haproxy.cfg"])
        self.haproxy.start()

    def remove(self) -> None:
        if self.haproxy is not None:
            self.haproxy.kill()
        self.databases.stop()
        self.brokers.stop()
        if self.network is not None:
            self.network.close()
        shutil.rmtree(self.directory, ignore_errors=True)


def _answers(host: str, port: int, path: str) -> int:
    try:
        with urllib.request.urlopen(f"http://{host}:{port}{path}", timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


_HAPROXY = """\
defaults
  mode tcp
  timeout connect 2s
  timeout client 1h
  timeout server 1h
  default-server inter 1s fastinter 500ms fall 2 rise 1 on-marked-down shutdown-sessions
listen primary
  bind 127.0.0.1:{0}
  option httpchk OPTIONS /primary
  http-check expect status 200
{primary}listen brokers
  bind 127.0.0.1:{1}
  balance roundrobin
{brokers}"""
