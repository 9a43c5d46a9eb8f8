#!/usr/bin/env python3
"""On a bare Debian 12 that its own systemd runs: the commands of docs/install.md as they stand there, and what the units promise.

The system is one that debootstrap makes, with Puppet, which a site has; systemd-nspawn boots it, without a network: its packages
are fetched before, and that counts as time of the installation. As root; needs debootstrap and systemd-container.

    packaging/deb/test.py [PACKAGE] [--base TAR]     TAR is made where it is not there; the next time it saves minutes
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
UNIT, FRONT = "puppet-ingest", "puppet-ingest-serve"
NODE, OTHER = "web-01.example.com", "web-02.example.com"
INCLUDED = "ca-certificates,systemd,systemd-sysv,dbus,procps,puppet-agent"  # minbase has none of them, an installed Debian has
PAGE = "http://127.0.0.1:8080"
INSTALL_S_MAX = 300
EXPOSURE_MAX = 2.0
ENVIRONMENT = ("env", "-i", "PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8",
               "DEBIAN_FRONTEND=noninteractive")  # fmt: skip
# A control group of version 2 of its own, as the root of all that the system in there sees, whatever this machine has; processes
# and /run of its own, because systemd-nspawn looks at those of the first process, and leaves things in /run.
BOOT = r"""
echo $$ >"$1/cgroup.procs"
exec unshare --cgroup --pid --fork --kill-child --mount-proc sh -ec 'mount -t cgroup2 cgroup2 /sys/fs/cgroup
    mount -t tmpfs tmpfs /run; exec "$@"' sh \
    systemd-nspawn --quiet --boot --register=no --keep-unit --private-network --console=pipe --directory="$2"
"""


class System:
    """One that is booted in the directory."""

    def __init__(self, root: Path, work: Path) -> None:
        self.root = root
        unified = next(
            line.split()[1]
            for line in Path("/proc/mounts").read_text().splitlines()
            if line.split()[2] == "cgroup2"
        )
        self._group = Path(unified) / f"ingest-test-deb-{os.getpid()}"
        self._console = work / "console"
        self._nspawn: subprocess.Popen[bytes] | None = None
        self._first = 0

    def boot(self) -> None:
        self._group.mkdir()
        with self._console.open("wb") as console:
            self._nspawn = subprocess.Popen(
                ["unshare", "--mount", "sh", "-ec", BOOT, "sh", self._group, self.root],
                stdin=subprocess.DEVNULL, stdout=console, stderr=console, start_new_session=True,
            )  # fmt: skip
        wait_for("a first process", self._find_first, 60)
        wait_for(
            "a system that runs",
            lambda: self.says("systemctl is-system-running || true") in ("running", "degraded"),
            90,
        )

    def _find_first(self) -> bool:
        assert self._nspawn is not None
        if self._nspawn.poll() is not None:
            sys.exit(f"systemd-nspawn ended: {self._console.read_text(errors='replace')[-2000:]}")
        named = [pid for pid in descendants(self._nspawn.pid) if comm(pid) == "systemd"]
        self._first = named[0] if named else 0
        return bool(named)

    def run(self, command: str, *, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            ["nsenter", f"--target={self._first}", "--mount", "--uts", "--ipc", "--net", "--pid", "--root", "--wdns=/root",
             *ENVIRONMENT, "sh", "-ec", command],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if check and done.returncode:
            sys.exit(f"failed: {command}\n{done.stdout[-3000:]}{done.stderr[-3000:]}\n{self.journal()}")
        return done

    def says(self, command: str) -> str:
        return self.run(command).stdout.strip()

    def show(self, unit: str, name: str) -> str:
        return self.says(f"systemctl show --property {name} --value {unit}")

    def journal(self) -> str:
        return (
            ""
            if not self._first
            else self.run("journalctl --no-pager -n 40 -u 'puppet-ingest*'", check=False).stdout
        )

    def halt(self) -> None:
        if self._nspawn is not None and self._nspawn.poll() is None:
            for pid in descendants(self._nspawn.pid):
                if comm(pid) == "systemd-nspawn":
                    os.kill(pid, signal.SIGTERM)  # an orderly end of all in there
                    break
            try:
                self._nspawn.wait(60)
            except subprocess.TimeoutExpired:
                self._nspawn.kill()
                self._nspawn.wait()
        for directory, _, _ in os.walk(self._group, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(directory)


def descendants(pid: int) -> Iterator[int]:
    with contextlib.suppress(OSError):
        for child in map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()):
            yield child
            yield from descendants(child)


def comm(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def wait_for(what: str, condition: Callable[[], bool], timeout_s: float) -> float:
    """Returns how long it took."""
    began_s = time.monotonic()
    while not condition():
        if time.monotonic() - began_s > timeout_s:
            sys.exit(f"not within {timeout_s:.0f} s: {what}")
        time.sleep(0.1)
    return time.monotonic() - began_s


def tell(what: str, figure: str = "") -> None:
    print(f"{what:<78} {figure}".rstrip(), flush=True)


def base(tar: Path, work: Path) -> Path:
    """A fresh system."""
    root = work / "root"
    if not tar.exists():
        subprocess.run(["debootstrap", "--variant=minbase", f"--include={INCLUDED}", "bookworm", root],
                       check=True, stdout=subprocess.DEVNULL)  # fmt: skip
        subprocess.run(["tar", "--create", "--file", tar, "--directory", root, "."], check=True)
    else:
        root.mkdir()
        subprocess.run(["tar", "--extract", "--file", tar, "--directory", root], check=True)
    return root


def fetch(root: Path, package: Path) -> float:
    """What apt-get will want in there; how long that took."""
    shutil.copy("/etc/resolv.conf", root / "etc/resolv.conf")
    for proxy in Path("/etc/apt/apt.conf.d").glob("*proxy*"):
        shutil.copy(proxy, root / "etc/apt/apt.conf.d")
    shutil.copy(package, root / "root")
    began_s = time.monotonic()
    (root / "etc/hostname").write_text(f"{NODE}\n")
    (root / "etc/hosts").write_text(f"127.0.0.1 localhost\n127.0.1.1 {NODE} {NODE.partition('.')[0]}\n")
    for command in ("apt-get update -qq", f"apt-get install -y -qq --download-only ./{package.name} ruby-pg"):
        subprocess.run(["chroot", root, *ENVIRONMENT, "sh", "-ec", f"cd /root; {command}"],
                       check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    return time.monotonic() - began_s


def commands() -> Iterator[str]:
    """Those of docs/install.md under its first heading."""
    text = (ROOT / "docs/install.md").read_text()
    first = text[text.index("\n## ") : text.index("\n## ", text.index("\n## ") + 1)]
    for block in re.findall(r"```sh\n(.*?)```", first, re.DOTALL):
        yield from block.splitlines()


def install(system: System, fetched_s: float) -> None:
    """And see a run's node on the page."""
    began_s = time.monotonic()
    typed = list(commands())
    for command in typed:
        at_s = time.monotonic()
        system.run(command)
        tell(f"# {command}", f"{time.monotonic() - at_s:.1f} s")
    wait_for("the node on the page", lambda: is_on_page(system), 60)
    seconds = fetched_s + time.monotonic() - began_s
    assert len(typed) == 4, typed
    assert seconds < INSTALL_S_MAX
    tell(
        f"four commands until the node is on the page; of it {fetched_s:.0f} s were fetching packages",
        f"{seconds:.0f} s",
    )
    for kind in ("catalogs", "factsets", "reports"):
        assert NODE in get(system, f"{PAGE}/pdb/query/v4/{kind}"), kind
    assert "<html" in get(system, f"{PAGE}/")


def get(system: System, url: str, how: str = "read") -> str:
    program = f"import sys, urllib.request as u; sys.stdout.buffer.write(u.urlopen(sys.argv[1], timeout=10).{how}())"
    return system.run(f"python3 -c '{program}' {url}", check=False).stdout


def is_on_page(system: System) -> bool:
    return '"nodes": 1' in get(system, f"{PAGE}/page/events", "readline")


def is_ready(system: System) -> bool:
    return system.show(UNIT, "ActiveState") == "active" and system.show(UNIT, "SubState") == "running"


def service(system: System) -> None:
    """Type=notify, an own user, hardening, credentials."""
    assert is_ready(system)
    assert (system.show(UNIT, "Type"), system.show(UNIT, "Result")) == ("notify", "success")
    pid = system.show(UNIT, "MainPID")
    assert system.says(f"stat -c %U /proc/{pid}") == "puppet-ingest"
    tell(f"Type=notify, active, {system.show(UNIT, 'StatusText')!r}, as the user puppet-ingest")
    for unit in (UNIT, FRONT):
        said = system.says(f"systemd-analyze security --no-pager {unit} | tail -n 1")
        figure = re.search(r"(\d+\.\d) ", said)
        assert figure is not None, said
        assert float(figure[1]) <= EXPOSURE_MAX
        tell(f"systemd-analyze security {unit}", figure[1])


def credential(system: System) -> None:
    """A file of root's alone reaches the service, and nobody else."""
    system.run("umask 077; printf 'secret\\n' >/etc/puppet-ingest/credentials/broker-password")
    system.run(f"systemctl restart {UNIT}")
    pid = system.show(UNIT, "MainPID")
    file = f"/proc/{pid}/root/run/credentials/{UNIT}.service/ingest_broker-password"
    assert system.says(f"cat {file}") == "secret"
    assert system.says(f"stat -c %a {file}").endswith("00")
    said = system.says(f"CREDENTIALS_DIRECTORY=/proc/{pid}/root/run/credentials/{UNIT}.service ingest config")
    assert re.search(r"^queue_password_file .*# credential$", said, re.MULTILINE), said
    system.run("rm /etc/puppet-ingest/credentials/broker-password")
    tell("LoadCredential: the unit has the file, and it is a setting")


def watchdog(system: System) -> None:
    """A main process that hangs is replaced."""
    before, pid = int(system.show(UNIT, "NRestarts")), system.show(UNIT, "MainPID")
    system.run(f"kill -STOP {pid}")
    seconds = wait_for(
        "another process", lambda: int(system.show(UNIT, "NRestarts")) > before and is_ready(system), 120
    )
    assert system.show(UNIT, "MainPID") != pid
    tell("the main process stopped by SIGSTOP: the watchdog had it replaced, ready after", f"{seconds:.1f} s")


def killed(system: System) -> None:
    """So is one that was killed; what had a receipt is there, and the front finds the new one."""
    before = int(system.show(UNIT, "NRestarts"))
    system.run(f"kill -KILL {system.show(UNIT, 'MainPID')}")
    seconds = wait_for(
        "another process", lambda: int(system.show(UNIT, "NRestarts")) > before and is_ready(system), 120
    )
    wait_for("the node on the page", lambda: is_on_page(system), 60)
    tell("the main process killed: started again by Restart=, ready after", f"{seconds:.1f} s")


def collecting(system: System) -> None:
    """Puppet on this machine collects from the embedded PostgreSQL what another node exports."""
    system.run("apt-get install -y -qq ruby-pg")
    system.run(
        f"echo 'embedded_database_port = 5433' >>/etc/puppet-ingest/ingest.toml; systemctl restart {UNIT}"
    )
    system.run("ingest config puppet")
    catalog = {
        "name": OTHER, "version": 1, "environment": "production", "edges": [], "classes": [],
        "resources": [{"type": "Notify", "title": f"from {OTHER}", "tags": ["notify"], "exported": True, "parameters": {}}],
    }  # fmt: skip
    (system.root / "root/other.json").write_text(json.dumps(catalog))
    system.run("ingest publish other.json")
    wait_for(
        "the other node's catalog", lambda: OTHER in system.says("ingest query exported --type Notify"), 30
    )
    said = system.says("puppet apply -e 'Notify <<| |>>'")
    assert f"from {OTHER}" in said, said
    tell("puppet apply collects what another node exports, from the embedded PostgreSQL")


def stop(system: System) -> None:
    """Clean, in time, and nothing is left running."""
    system.run("puppet apply -e 'notify { \"once more\": }'")
    began_s = time.monotonic()
    system.run(f"systemctl stop {UNIT}")
    seconds = time.monotonic() - began_s
    found = {
        name: system.show(UNIT, name) for name in ("ActiveState", "Result", "ExecMainCode", "ExecMainStatus")
    }
    assert found == {
        "ActiveState": "inactive",
        "Result": "success",
        "ExecMainCode": "1",
        "ExecMainStatus": "0",
    }, found
    assert system.says("pgrep -u puppet-ingest || true") == ""
    tell("systemctl stop: exit code 0, no process left, after", f"{seconds:.1f} s")
    system.run(f"systemctl start {UNIT} {FRONT}")
    system.run(f"ingest show {NODE}")
    assert system.says("systemctl list-units --failed --no-legend 'puppet-ingest*'") == ""


def removal(system: System) -> None:
    system.run("apt-get remove -y -qq puppet-ingest")
    data, settings = system.root / "var/lib/puppet-ingest/postgresql", system.root / "etc/puppet-ingest"
    assert data.is_dir()
    assert (settings / "ingest.toml").exists()
    system.run("apt-get purge -y -qq puppet-ingest")
    assert data.is_dir()
    assert not settings.exists()
    assert not (system.root / "usr/lib/puppet-ingest").exists()
    tell("removed: data and settings are there; purged: the data")


@contextmanager
def directory() -> Iterator[Path]:
    work = Path(tempfile.mkdtemp(prefix="ingest-test-deb-"))
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("package", nargs="?", type=Path, help="(default: that in dist/)")
    parser.add_argument("--base", type=Path, help="a tar of a Debian 12 with systemd and Puppet")
    asked = parser.parse_args()
    package = asked.package or next((ROOT / "dist").glob("puppet-ingest_*.deb"))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with directory() as work:
        root = base(asked.base or work / "base.tar", work)
        fetched_s = fetch(root, package)
        system = System(root, work)
        try:
            at_s = time.monotonic()
            system.boot()
            tell(
                f"{system.says('systemctl --version | head -n 1')} is the first process, up after",
                f"{time.monotonic() - at_s:.1f} s",
            )
            install(system, fetched_s)
            parts = (service, credential, watchdog, killed, collecting, stop, removal)
            for part in parts:
                part(system)
        finally:
            system.halt()
    print(f"{len(parts) + 1} passed, 0 failed")


if __name__ == "__main__":
    main()
