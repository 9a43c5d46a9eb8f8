"""Where the servers of a cluster run: all here, on loopback; or each on a machine of its own, a network namespace with an address
on one bridge, so that what one of them says to another can be lost, cut, or sent by a name to somebody else.

The network is in a namespace of the test's own (``enter``), and is gone with it. Packets are dropped by nftables.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

INSIDE = "INGEST_LAB_NETWORK"  # set where ``enter`` has been
HOSTS = Path("/etc/hosts")
US = "10.77.0.1"


class Machine(NamedTuple):
    """One that a program can be started on."""

    name: str = "localhost"
    address: str = "127.0.0.1"
    enter: tuple[str, ...] = ()  # what becomes a program there


def missing() -> str | None:
    """What a network lacks here."""
    for program in ("unshare", "nsenter", "ip", "nft"):
        if shutil.which(program) is None:
            return f"no {program}: apt-get install util-linux iproute2 nftables"
    found = subprocess.run(
        ["unshare", "--net", "--mount", "sh", "-c", "ip link add lab type bridge && nft add table inet lab && mount --bind "
         "/etc/hostname /etc/hosts"], capture_output=True, text=True, check=False,
    )  # fmt: skip
    return f"no network of our own: {found.stderr.strip().splitlines()[-1]}" if found.returncode else None


def enter(module: str) -> None:
    """Becomes the same program in a namespace of its own, where there can be one and it is not in it yet."""
    if INSIDE not in os.environ and missing() is None:
        os.environ[INSIDE] = "1"
        os.execvp("unshare", ["unshare", "--net", "--mount", sys.executable, "-m", module, *sys.argv[1:]])


class Network:
    """For a process that has entered. To be made by the main thread: its machines end with the thread that made them."""

    def __init__(self, names: Sequence[str]) -> None:
        assert INSIDE in os.environ, "not in a network of its own"
        self._hosts = tempfile.NamedTemporaryFile("w", prefix="ingest-hosts-")  # noqa: SIM115 - lives as long
        self._before = HOSTS.read_text()
        self._names: dict[str, str] = {}
        self._holders: list[subprocess.Popen[bytes]] = []
        _run("mount", "--bind", self._hosts.name, str(HOSTS))
        os.chmod(self._hosts.name, 0o644)
        for words in (
            "link set lo up",
            "link add lab type bridge",
            f"address add {US}/24 dev lab",
            "link set lab up",
        ):
            _run("ip", *words.split())
        _allow(())
        self.machines = {name: self._machine(name, place) for place, name in enumerate(names)}
        self._lost = 0.0
        self._cuts: dict[str, list[str]] = {}  # rules
        self.point({name: name for name in names})

    def point(self, names: Mapping[str, str]) -> None:
        """From now on these names, too, mean those machines."""
        self._names |= {name: self.machines[machine].address for name, machine in names.items()}
        lines = [f"{address} {name}" for name, address in self._names.items()]
        # In place: the file itself is what is mounted.
        Path(self._hosts.name).write_text(self._before + "\n" + "\n".join(lines) + "\n")

    def lose(self, share: float) -> None:
        """Of the packets that come to any machine, and to us."""
        self._lost = share
        self._apply()

    def cut(
        self, name: str, others: Collection[str] | None = None, ways: Collection[str] = ("in", "out")
    ) -> None:
        """Nothing passes between it and the others, without a word: ``in`` to it, ``out`` from it; ``us`` is one of them, None
        all of them."""
        addresses = {each.name: each.address for each in self.machines.values()} | {"us": US}
        del addresses[name]
        cut = ", ".join(addresses[other] for other in addresses if others is None or other in others)
        side = {"in": "saddr", "out": "daddr"}
        self._cuts[name] = [f"add rule inet lab {way} ip {side[way]} {{ {cut} }} drop" for way in ways]
        self._apply()

    def mend(self) -> None:
        self._lost, self._cuts = 0.0, {}
        self._apply()

    def close(self) -> None:
        _run("umount", str(HOSTS))
        self._hosts.close()
        for holder in self._holders:
            holder.kill()
            holder.wait()

    def _apply(self) -> None:
        loss = [f"add rule inet lab in iif != lo numgen random mod 1000 < {self._lost * 1000:.0f} drop"] * (
            self._lost > 0
        )
        _allow((), loss)
        for machine in self.machines.values():
            _allow(machine.enter, self._cuts.get(machine.name, []) + loss)

    def _machine(self, name: str, place: int) -> Machine:
        held = ["unshare", "--net", "--uts", "sh", "-c", "hostname $0; echo; exec sleep infinity", name]
        holder = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", *held], stdout=subprocess.PIPE)
        assert holder.stdout is not None
        holder.stdout.read(1)  # it is in its namespace
        self._holders.append(holder)
        spaces = f"/proc/{holder.pid}/ns"
        machine = Machine(
            name, f"10.77.0.{place + 11}", ("nsenter", f"--net={spaces}/net", f"--uts={spaces}/uts")
        )
        _run("ip", *f"link add {name} type veth peer name eth0 netns {holder.pid}".split())
        _run("ip", *f"link set {name} master lab up".split())
        for words in ("link set lo up", f"address add {machine.address}/24 dev eth0", "link set eth0 up"):
            _run(*machine.enter, "ip", *words.split())
        _allow(machine.enter)
        return machine


def _allow(enter: Sequence[str], but: Sequence[str] = ()) -> None:
    """All at once, so that no packet comes between two rules."""
    rules = [
        "add table inet lab", "delete table inet lab", "add table inet lab",
        "add chain inet lab in { type filter hook input priority 0; }",
        "add chain inet lab out { type filter hook output priority 0; }", *but,
    ]  # fmt: skip
    subprocess.run([*enter, "nft", "-f", "-"], input="\n".join(rules) + "\n", text=True, check=True)


def _run(*command: str) -> None:
    subprocess.run(command, check=True)
