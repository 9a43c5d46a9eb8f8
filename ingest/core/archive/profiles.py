"""What each profile of anonymisation replaces: by the kind of a value, rules of which the first that fits decides.

A rule is (context, whether to replace). A context names what has to be so: text is compared, a pattern searched for; of a
tuple one has to fit. Where no rule fits, and for a kind without rules, it is replaced.

Source: PuppetDB 7.12.1, ``puppetlabs.puppetdb.anonymizer/anon-profiles``. Packages are ours: PuppetDB leaves them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from re import Pattern

Test = str | Pattern[str]
Rule = tuple[Mapping[str, tuple[Test, ...]], bool]
Rules = Mapping[str, tuple[Rule, ...]]

_KEPT: tuple[Rule, ...] = (({}, False),)
_REPLACED: tuple[Rule, ...] = (({}, True),)


def _tests(*texts: str) -> tuple[Test, ...]:
    """``/.../`` is a pattern."""
    return tuple(re.compile(text[1:-1]) if text.startswith("/") else text for text in texts)


_SECRET = _tests("/password/", "/pwd/", "/secret/", "/key/", "/private/")
_TYPES = _tests(
    "Augeas", "Computer", "Cron", "Exec", "File", "Filebucket", "Group", "Host", "Interface", "K5login", "Macauthorization",
    "Mailalias", "Mcx", "Mount", "Notify", "Package", "Resources", "Router", "Schedule", "Schedule_task", "Selboolean",
    "Selmodule", "Service", "Ssh_authorized_key", "Sshkey", "Stage", "Tidy", "User", "Vlan", "Yumrepo", "Zfs", "Zone", "Zpool",
    "/^Nagios_/", "Class", "Anchor", "File_line", "/^Pe_/", "Firewall", "A2mod", "Vcsrepo", "Filesystem", "Logical_volume",
    "Physical_volume", "Volume_group", "Java_ks", "/^Mysql/", "/^Postgresql/", "/^Rabbitmq/", "/^Puppetdb/", "/^Apache/",
    "/^Mrepo/", "/^F5/", "/^Apt/", "/^Registry/", "/^Concat/",
)  # fmt: skip
_FACT_VALUES = _tests(
    "architecture", "/^augeasversion.*/", "/^bios_.*/", "/^blockdevice.*/", "boardassettag",
    "boardmanufacturer", "boardproductname", "boardserialnumber", "facterversion", "hardwareisa",
    "hardwaremodel", "id", "interfaces", "/^iptables.*/", "/^ip6tables.*/", "is_pe", "is_virtual", "/^kernel.*/", "/^lsb.*/",
    "/^macosx.*/", "/^memory.*/", "/^mtu_.*/", "/^netmask.*/", "/^operatingsystem.*/", "osfamily", "/^postgres_.*/",
    "/^processor.*/", "/^physicalprocessorcount.*/", "productname", "ps", "puppetversion", "rubysitedir", "rubyversion",
    "/^selinux.*/", "swapencrypted", "/^swapfree.*/", "/^swapsize.*/", "timezone", "/^uptime.*/", "virtual",
)  # fmt: skip
_FACT_NAMES = _FACT_VALUES + _tests(
    "domain", "fqdn", "hostname", "/^ipaddress.*/", "/^macaddress.*/", "memorytotal", "/^network.*/", "path", "/^sp_.*/",
    "/^ssh.*/", "uuid",
)  # fmt: skip

PROFILES_OF_RULES: Mapping[str, Rules] = {
    "full": {},
    "moderate": {
        "type": (({"type": _TYPES}, False),),
        "title": (({"type": _tests("Filebucket", "Package", "Stage", "Service")}, False),),
        "parameter-name": _KEPT,
        "parameter-value": (
            (
                {"parameter-name": _tests("provider", "ensure", "noop", "loglevel", "audit", "schedule")},
                False,
            ),
        ),
        "catalog-input-type": _KEPT,
        "line": _KEPT,
        "transaction_uuid": _KEPT,
        "fact-name": (({"fact-name": _FACT_NAMES}, False),),
        "fact-value": (({"fact-name": _SECRET}, True), ({"fact-name": _FACT_VALUES}, False)),
        "environment": _REPLACED,
        "package": _KEPT,
    },
    "low": {
        "node": _REPLACED,
        **dict.fromkeys(
            (
                "type", "title", "parameter-name", "catalog-input-type", "line", "file", "transaction_uuid", "fact-name",
                "environment", "package",
            ),
            _KEPT,
        ),
        "message": (({"parameter-name": _SECRET}, True), ({}, False)),
        "parameter-value": _REPLACED,
        "fact-value": (({"fact-name": _SECRET}, True), ({}, False)),
    },
}  # fmt: skip


def is_replaced(rules: Rules, kind: str, context: Mapping[str, str | None]) -> bool:
    for needed, decision in rules.get(kind, ()):
        if all(_fits(tests, context.get(name)) for name, tests in needed.items()):
            return decision
    return True


def _fits(tests: tuple[Test, ...], value: str | None) -> bool:
    if value is None:
        return False
    return any(value == test if isinstance(test, str) else test.search(value) is not None for test in tests)
