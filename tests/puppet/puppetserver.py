"""Debian's puppetserver in the foreground, over a Site's directories, and an agent that asks it for catalogs."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from lab.servers import free_port
from tests.puppet.site import Site

JAR = Path("/usr/share/puppetserver/puppetserver.jar")
START_TIMEOUT_S = (
    400.0  # half a minute on an idle machine of two cores; ten times that was seen on a busy one
)
STOP_TIMEOUT_S = 60.0
COMPILE_TIMEOUT_S = 120.0  # the first one of a JRuby instance loads all of Puppet

# What Debian's own bootstrap.cfg has, without the certificate authority: agents come by plain HTTP.
SERVICES = """\
puppetlabs.services.request-handler.request-handler-service/request-handler-service
puppetlabs.services.jruby.jruby-puppet-service/jruby-puppet-pooled-service
puppetlabs.services.jruby-pool-manager.jruby-pool-manager-service/jruby-pool-manager-service
puppetlabs.services.puppet-profiler.puppet-profiler-service/puppet-profiler-service
puppetlabs.trapperkeeper.services.webserver.jetty9-service/jetty9-service
puppetlabs.trapperkeeper.services.webrouting.webrouting-service/webrouting-service
puppetlabs.services.config.puppet-server-config-service/puppet-server-config-service
puppetlabs.services.master.master-service/master-service
puppetlabs.services.puppet-admin.puppet-admin-service/puppet-admin-service
puppetlabs.trapperkeeper.services.authorization.authorization-service/authorization-service
puppetlabs.services.versioned-code-service.versioned-code-service/versioned-code-service
puppetlabs.trapperkeeper.services.scheduler.scheduler-service/scheduler-service
puppetlabs.trapperkeeper.services.status.status-service/status-service
puppetlabs.trapperkeeper.services.metrics.metrics-service/metrics-service
puppetlabs.services.jruby.jruby-metrics-service/jruby-metrics-service
puppetlabs.services.ca.certificate-authority-disabled-service/certificate-authority-disabled-service
"""
CONFIG = """\
global: {{ logging-config: {directory}/logback.xml }}
webserver: {{ host: 127.0.0.1, port: {port} }}
web-router-service: {{
  "puppetlabs.services.master.master-service/master-service": "/puppet"
  "puppetlabs.services.puppet-admin.puppet-admin-service/puppet-admin-service": "/puppet-admin-api"
  "puppetlabs.trapperkeeper.services.status.status-service/status-service": "/status"
}}
metrics: {{ server-id: localhost }}
jruby-puppet: {{
  ruby-load-path: [/usr/lib/puppetserver/ruby/vendor_ruby]
  gem-home: {directory}/gems
  gem-path: [{directory}/gems, /usr/lib/puppetserver/vendored-jruby-gems]
  server-conf-dir: {confdir}
  server-code-dir: {directory}
  server-var-dir: {vardir}
  server-run-dir: {directory}/run
  server-log-dir: {directory}/log
  max-active-instances: {instances}
  multithreaded: {multithreaded}
}}
authorization: {{
  version: 1
  allow-header-cert-info: true
  rules: [{{
    match-request: {{ path: "/", type: path }}
    allow-unauthenticated: true, sort-order: 1, name: "everybody: a test on loopback"
  }}]
}}
"""
LOGBACK = """<configuration><appender name="OUT" class="ch.qos.logback.core.ConsoleAppender">
  <encoder><pattern>%d{HH:mm:ss.SSS} %-5p [%t] %m%n</pattern></encoder></appender>
  <root level="info"><appender-ref ref="OUT"/></root></configuration>"""


class Refused(Exception):
    """The server answered a request for a catalog with an error."""


class PuppetServer:
    """One puppetserver; ready after ``start``."""

    def __init__(self, site: Site, *, instances: int, multithreaded: bool) -> None:
        self.site = site
        self.port = free_port()
        self.output = site.directory / "puppetserver.log"
        self.process: subprocess.Popen[bytes] | None = None
        directory = site.directory / "puppetserver"
        for made in (directory, directory / "run", directory / "log"):
            made.mkdir()
        (directory / "logback.xml").write_text(LOGBACK)
        (directory / "services.cfg").write_text(SERVICES)
        self.config = directory / "puppetserver.conf"
        self.config.write_text(
            CONFIG.format(
                directory=directory, port=self.port, confdir=site.confdir, vardir=site.vardir,
                instances=instances, multithreaded=str(multithreaded).lower(),
            )
        )  # fmt: skip
        self.services = directory / "services.cfg"

    @staticmethod
    def missing() -> str | None:
        if not JAR.exists() or shutil.which("java") is None:
            return "no puppetserver: apt-get install puppetserver"
        if not Path("/usr/share/java/postgresql.jar").exists():
            return "no JDBC driver: apt-get install libpostgresql-jdbc-java"
        return None

    def start(self) -> None:
        with self.output.open("ab") as output:
            self.process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "TERM", "java", "-Xms256m", "-Xmx1g", "-XX:+UseSerialGC",
                 "-Djruby.lib=/usr/share/jruby/lib",
                 "-Djruby.logger.class=com.puppetlabs.jruby_utils.jruby.Slf4jLogger",
                 "-jar", JAR, "--config", self.config, "--bootstrap-config", self.services],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                env=os.environ | {"HOME": str(self.site.directory), "LC_ALL": "C.UTF-8"},
            )  # fmt: skip
        deadline = time.monotonic() + START_TIMEOUT_S
        while self._status() != "running":
            assert self.process.poll() is None, self.log()[-4000:]
            assert time.monotonic() < deadline, self.log()[-4000:]
            time.sleep(0.2)

    def _status(self) -> str:
        with (
            contextlib.suppress(OSError),
            urllib.request.urlopen(f"http://127.0.0.1:{self.port}/status/v1/simple", timeout=5) as answer,
        ):
            return str(answer.read().decode())
        return "away"

    def stop(self) -> None:
        """As systemd would."""
        process, self.process = self.process, None
        if process is not None:
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_TIMEOUT_S)
            process.kill()
            process.wait()

    def flush_pool(self) -> None:
        """New JRuby instances for the old ones; done when the next request is answered by a new one."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/puppet-admin-api/v1/jruby-pool", method="DELETE"
        )
        with urllib.request.urlopen(request, timeout=STOP_TIMEOUT_S) as answer:
            assert answer.status == 204

    def log(self) -> str:
        return self.output.read_text(errors="replace")

    def problems(self) -> list[str]:
        """Warnings and errors of the module."""
        return [
            line
            for line in self.log().splitlines()
            if "catalog_queue" in line and (" WARN " in line or " ERROR " in line)
        ]

    def compile(self, node: str, transaction_uuid: str, **facts: object) -> dict[str, Any]:
        """The catalog, as an agent of that name gets it. Raises Refused."""
        values = {"networking": {"fqdn": node}, "clientcert": node} | facts
        given = json.dumps({"name": node, "values": values})
        body = urllib.parse.urlencode(
            {
                "environment": "production", "facts_format": "application/json",
                "facts": urllib.parse.quote_plus(given), "transaction_uuid": transaction_uuid,
            }
        )  # fmt: skip
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/puppet/v3/catalog/{node}?environment=production",
            data=body.encode(),
            headers={
                "Content-Type": "application/x-www-form-urlencoded",
                "Accept": "application/vnd.puppet.rich+json, application/json",
                "X-Client-DN": f"CN={node}",
                "X-Client-Verify": "SUCCESS",
            },
        )
        try:
            with urllib.request.urlopen(request, timeout=COMPILE_TIMEOUT_S) as answer:
                found: dict[str, Any] = json.load(answer)
                return found
        except urllib.error.HTTPError as error:
            raise Refused(f"{error.code}: {error.read()[:2000]!r}") from error
