"""Brokers for the tests, each in the foreground, in a temporary directory, on loopback ports of its own.

RabbitMQ, ActiveMQ Classic and StompServer are Debian's packages; the embedded broker is ours. All look alike: where
they listen, who may log in, what they keep over a restart. A port stays the same for a broker's whole life.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from lab.certificates import Certificates
from lab.servers import free_port
from lab.stomp_client import Client

START_TIMEOUT_S = 90.0  # a JVM or an Erlang machine on a machine that is busy with other tests
USER, PASSWORD = "ingest", "s3cret"
PUBLISHERS = ("puppet-a", "puppet-b")  # two more who may publish, with the same password
READER = "reader"  # a user who may log in and nothing else, where the broker knows such
RABBITMQ = Path(
    "/usr/lib/rabbitmq/bin/rabbitmq-server"
)  # not the one in PATH, which changes user and directory
ACTIVEMQ = Path("/usr/share/activemq")
STOMPSERVER = Path("/usr/lib/ruby/vendor_ruby/stomp_server.rb")


class Broker:
    """One broker; ``start`` and ``stop`` any number of times, ``remove`` at the end."""

    name: ClassVar[str]
    versions: ClassVar[tuple[str, ...]] = ("1.0", "1.1", "1.2")  # of STOMP
    keeps_messages: ClassVar[bool] = True  # persistent ones, over a restart
    survives_kill: ClassVar[bool] = False  # and then over kill -9
    speaks_tls: ClassVar[bool] = False
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM

    def __init__(self, certificates: Certificates | None = None) -> None:
        self.certificates = certificates
        self.directory = Path(tempfile.mkdtemp(prefix=f"ingest-{self.name}-"))
        self.port = free_port()
        self.tls_port = free_port() if certificates and self.speaks_tls else 0
        self.process: subprocess.Popen[bytes] | None = None
        self.prepare()

    @staticmethod
    def missing() -> str | None:
        """Why it cannot be started here."""
        return None

    def prepare(self) -> None:
        """Writes its configuration."""

    def command(self) -> list[str | Path]:
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        return {}

    def url(self, user: str = USER, password: str = PASSWORD) -> str:
        return f"stomp://{user}:{password}@127.0.0.1:{self.port}"

    def tls_url(self, port: int | None = None) -> str:
        """By the name that its certificate is for."""
        return f"stomp+ssl://{USER}:{PASSWORD}@localhost:{port or self.tls_port}"

    def start(self) -> None:
        with (self.directory / "output").open("ab") as output:
            self.process = subprocess.Popen(
                # It ends with the tests, however those end.
                ["setpriv", "--pdeathsig", "TERM", *self.command()],
                env=os.environ | {"HOME": str(self.directory)} | self.environment(),
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=self.directory, start_new_session=True,
            )  # fmt: skip
        for port in self.ports():
            self._wait_for(port, self.process)
        self._wait_for_login(self.process)

    def ports(self) -> list[int]:
        return [port for port in (self.port, self.tls_port) if port]

    def _wait_for(self, port: int, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), 1).close()
                return
            assert process.poll() is None, self.output()
            assert time.monotonic() < deadline, f"{self.name} does not come up\n{self.output()}"
            time.sleep(0.05)

    def _wait_for_login(self, process: subprocess.Popen[bytes]) -> None:
        """RabbitMQ listens before it lets anybody in."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                Client(self.port, USER, PASSWORD).close()
                return
            except (AssertionError, OSError):
                assert process.poll() is None, self.output()
                assert time.monotonic() < deadline, f"{self.name} lets nobody in\n{self.output()}"
                time.sleep(0.05)

    def stop(self) -> None:
        process, self.process = self.process, None
        if process is None:
            return
        process.send_signal(self.stop_signal)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(30)
        # A session of its own: what it has started ends with it.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def kill(self) -> None:
        """As a power cut would end it."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGKILL)
        self.stop()

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    def output(self) -> str:
        return (self.directory / "output").read_text(errors="replace")[-4000:]


class RabbitMQ(Broker):
    name = "rabbitmq"
    speaks_tls = True
    survives_kill = True

    @staticmethod
    def missing() -> str | None:
        return None if RABBITMQ.exists() else "no RabbitMQ: apt-get install rabbitmq-server"

    def prepare(self) -> None:
        self.amqp, self.dist, self.epmd = (free_port() for _ in range(3))
        lines = [
            f"listeners.tcp.1 = 127.0.0.1:{self.amqp}",
            f"stomp.listeners.tcp.1 = 127.0.0.1:{self.port}",
            f"load_definitions = {self.directory / 'definitions.json'}",
        ]
        if self.certificates:
            lines += [
                f"stomp.listeners.ssl.1 = 127.0.0.1:{self.tls_port}",
                f"ssl_options.cacertfile = {self.certificates.ca_file}",
                f"ssl_options.certfile = {self.certificates.server_file}",
                f"ssl_options.keyfile = {self.certificates.server_file}",
                "ssl_options.verify = verify_peer",
                "ssl_options.fail_if_no_peer_cert = false",
            ]
        (self.directory / "rabbitmq.conf").write_text("\n".join(lines) + "\n")
        (self.directory / "plugins").write_text("[rabbitmq_stomp].")
        allowed = {USER: ".*", "guest": ".*", READER: "^$"} | dict.fromkeys(PUBLISHERS, ".*")
        definitions = {
            "users": [
                {"name": user, "password": "guest" if user == "guest" else PASSWORD, "tags": ""}
                for user in allowed
            ],
            "vhosts": [{"name": "/"}],
            "permissions": [
                {"user": user, "vhost": "/", "configure": what, "write": what, "read": what}
                for user, what in allowed.items()
            ],
        }
        (self.directory / "definitions.json").write_text(json.dumps(definitions))

    def start(self) -> None:
        # Our own, else the broker starts one that nobody ends: it leaves the session.
        self.port_mapper = subprocess.Popen(
            ["setpriv", "--pdeathsig", "TERM", "epmd", "-port", str(self.epmd), "-address", "127.0.0.1"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self._wait_for(self.epmd, self.port_mapper)
        super().start()

    def stop(self) -> None:
        if self.process is not None:
            super().stop()
            self.port_mapper.kill()
            self.port_mapper.wait()

    def command(self) -> list[str | Path]:
        return [RABBITMQ]

    def environment(self) -> dict[str, str]:
        return {
            "RABBITMQ_NODENAME": f"ingest{self.port}@localhost",
            "RABBITMQ_CONFIG_FILE": str(self.directory / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.directory / "plugins"),
            "RABBITMQ_MNESIA_BASE": str(self.directory / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self.directory / "log"),
            "RABBITMQ_DIST_PORT": str(self.dist),
            "ERL_EPMD_PORT": str(self.epmd),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
        }


class ActiveMQ(Broker):
    """ActiveMQ Classic. Of its two TLS ports the second one demands a certificate of the client."""

    name = "activemq"
    speaks_tls = True
    survives_kill = True

    @staticmethod
    def missing() -> str | None:
        if not (ACTIVEMQ / "lib").is_dir() or shutil.which("java") is None:
            return "no ActiveMQ: apt-get install activemq default-jre-headless"
        return None

    def prepare(self) -> None:
        tls = connectors = ""
        self.client_tls_port = 0
        if self.certificates:
            self.client_tls_port = free_port()
            tls = _KEY_STORES.format(
                key_store=self.certificates.server_key_store,
                trust_store=self.certificates.ca_key_store,
                password=self.certificates.key_store_password,
            )
            connectors = _TLS_CONNECTORS.format(port=self.tls_port, client_port=self.client_tls_port)
        users = "".join(
            f'<authenticationUser username="{user}" password="{PASSWORD}" groups="users"/>'
            for user in (USER, *PUBLISHERS)
        )
        (self.directory / "activemq.xml").write_text(
            _ACTIVEMQ_XML.format(
                data=self.directory / "data", port=self.port, users=users, tls=tls,
                connectors=connectors,
            )
        )  # fmt: skip

    def ports(self) -> list[int]:
        return [*super().ports(), *([self.client_tls_port] if self.client_tls_port else [])]

    def command(self) -> list[str | Path]:
        jars = [f"{ACTIVEMQ}/bin/activemq.jar", f"{ACTIVEMQ}/lib/*", f"{ACTIVEMQ}/lib/optional/*"]
        return [
            "java", "-Xms64M", "-Xmx512M", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC",
            f"-Dactivemq.home={ACTIVEMQ}", f"-Dactivemq.base={self.directory}",
            f"-Dactivemq.data={self.directory / 'data'}", f"-Djava.io.tmpdir={self.directory}",
            "-cp", ":".join(jars),
            "org.apache.activemq.console.Main", "start", f"xbean:file:{self.directory / 'activemq.xml'}",
        ]  # fmt: skip


class StompServer(Broker):
    """The broker that Puppet's queueing document names: STOMP 1.0, one message in flight."""

    name = "stompserver"
    versions = ("1.0",)
    stop_signal = signal.SIGINT  # the one signal that it handles: it saves its queues

    @staticmethod
    def missing() -> str | None:
        if not STOMPSERVER.exists() or shutil.which("ruby") is None:
            return "no StompServer: apt-get install stompserver"
        return None

    def prepare(self) -> None:
        (self.directory / "etc").mkdir()
        (self.directory / "etc" / ".passwd").write_text(f"{USER} : {PASSWORD}\n")

    def command(self) -> list[str | Path]:
        # Its own start script does not work under Ruby 3: "class variable access from toplevel".
        launcher = Path(__file__).with_name("stompserver.rb")
        return ["ruby", launcher, "-p", str(self.port), "-b", "127.0.0.1", "-q", "file", "-a", "yes",
                "-w", self.directory]  # fmt: skip


class Embedded(Broker):
    """Ours."""

    name = "embedded"
    keeps_messages = False

    def command(self) -> list[str | Path]:
        login = self.directory / "login"
        login.write_text(f"{USER}:{PASSWORD}\n")
        return [
            sys.executable,
            "-m",
            "ingest.embedded.broker",
            "--port",
            str(self.port),
            "--login-file",
            login,
        ]


class EmbeddedTLS(Embedded):
    """The same with TLS on its only port."""

    name = "embedded-tls"

    def prepare(self) -> None:
        self.tls_port = self.port

    def command(self) -> list[str | Path]:
        assert self.certificates is not None
        return [*super().command(), "--certfile", self.certificates.server_file]

    def _wait_for_login(self, process: subprocess.Popen[bytes]) -> None:
        pass  # it listens when it is ready


BROKERS: dict[str, type[Broker]] = {
    broker.name: broker for broker in (RabbitMQ, ActiveMQ, StompServer, Embedded)
}
KINDS: dict[str, type[Broker]] = BROKERS | {EmbeddedTLS.name: EmbeddedTLS}


@contextlib.contextmanager
def rabbitmq() -> Iterator[str]:
    """Gives the URL of a fresh broker."""
    broker = RabbitMQ()
    try:
        broker.start()
        yield broker.url()
    finally:
        broker.remove()


_ACTIVEMQ_XML = """\
<beans xmlns="http://www.springframework.org/schema/beans" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"
  xsi:schemaLocation="http://www.springframework.org/schema/beans http://www.springframework.org/schema/beans/spring-beans-2.0.xsd
  http://activemq.apache.org/schema/core http://activemq.apache.org/schema/core/activemq-core.xsd">
  <broker xmlns="http://activemq.apache.org/schema/core" brokerName="ingest" useJmx="false" dataDirectory="{data}"
    schedulerSupport="false" populateJMSXUserID="true" useAuthenticatedPrincipalForJMSXUserID="true">
    <persistenceAdapter><kahaDB directory="{data}/kahadb"/></persistenceAdapter>
    <plugins><simpleAuthenticationPlugin><users>
      {users}
    </users></simpleAuthenticationPlugin></plugins>
    {tls}
    <transportConnectors>
      <transportConnector name="stomp" uri="stomp://127.0.0.1:{port}"/>
      {connectors}
    </transportConnectors>
  </broker>
</beans>
"""
_KEY_STORES = """<sslContext><sslContext keyStore="file:{key_store}" keyStorePassword="{password}"
      keyStoreType="PKCS12" trustStore="file:{trust_store}" trustStorePassword="{password}" trustStoreType="PKCS12"
    /></sslContext>"""
_TLS_CONNECTORS = """<transportConnector name="tls" uri="stomp+ssl://127.0.0.1:{port}"/>
      <transportConnector name="client" uri="stomp+ssl://127.0.0.1:{client_port}?needClientAuth=true"/>"""
