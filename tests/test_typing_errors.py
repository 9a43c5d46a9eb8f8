"""Whatever an operator types wrongly gets one line that names the setting and what it should be, and exit code 2."""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import structlog

from ingest.cli import main as command_line
from ingest.config.setting import Setting
from ingest.config.settings import RETIRED, SETTINGS


@pytest.fixture(autouse=True)
def _nothing_of_anybody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No ingest.toml, no variable; and nothing for good: signals, hooks and the log are this process's."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith(("INGEST_", "PG"))]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(command_line, "leave_on_signals", lambda: None)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    yield
    structlog.reset_defaults()  # a log to a stream of pytest's would fail the next test that logs


def typed(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[Any, str]:
    """The exit code, and the one line."""
    monkeypatch.setattr(sys, "argv", ["ingest", *arguments])
    with pytest.raises(SystemExit) as left:
        command_line.main()
    said = capsys.readouterr().err
    assert said.count("\n") == 1, said
    assert said.startswith("ingest: ")
    assert "Traceback" not in said
    return left.value.code, said


def commands(
    group: click.Group, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name, command in group.commands.items():
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))


COMMANDS = dict(commands(command_line.cli))
LEAVES = {path: command for path, command in COMMANDS.items() if not isinstance(command, click.Group)}
OF_SETTINGS = {setting.name for setting in SETTINGS} | set(RETIRED) | {"config_file", "puppet_conf"}


def arguments_of(command: click.Command) -> list[str]:
    """Something for each argument and option that must be there."""
    given: list[str] = []
    for parameter in command.params:
        if parameter.required:
            value = "1" if isinstance(parameter.type, click.types.IntParamType) else "x"
            given += [value] if isinstance(parameter, click.Argument) else [parameter.opts[0], value]
    return given


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_a_flag_that_is_none(
    path: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of every command: the flag is named."""
    code, said = typed([*path, "--no-such-flag"], monkeypatch, capsys)
    assert (code, "--no-such-flag" in said) == (2, True)


@pytest.mark.parametrize(
    "path", [(), *(path for path, each in COMMANDS.items() if isinstance(each, click.Group))], ids=" ".join
)
def test_a_command_that_is_none(
    path: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the program and of each group: the word is named. Where a single one may be a node's name, two are not."""
    code, said = typed([*path, "sho", "web-01"], monkeypatch, capsys)
    assert (code, "sho" in said) == (2, True)


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_one_argument_too_many(
    path: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where a command takes no list of them."""
    command = LEAVES[path]
    arguments = [parameter for parameter in command.params if isinstance(parameter, click.Argument)]
    if any(argument.nargs == -1 for argument in arguments):
        return
    several = [each.type.choices[0] if isinstance(each.type, click.Choice) else "1" for each in arguments] + [
        "1"
    ]
    options = [word for word in arguments_of(command) if word not in ("x", "1")]
    given = [word for option in options for word in (option, "x")]
    code, said = typed([*path, *given, *several], monkeypatch, capsys)
    assert (code, "unexpected extra argument" in said) == (2, True)


def required() -> list[tuple[tuple[str, ...], str]]:
    return [
        (
            path,
            parameter.opts[0]
            if isinstance(parameter, click.Option)
            else parameter.make_metavar(click.Context(command)),
        )
        for path, command in LEAVES.items()
        for parameter in command.params
        if parameter.required
    ]


@pytest.mark.parametrize(("path", "named"), required(), ids=str)
def test_what_must_be_there_is_named(
    path: tuple[str, ...], named: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An argument or an option without which a command makes no sense."""
    command = LEAVES[path]
    given: list[str] = []
    for parameter in command.params:  # all that comes before it
        name = (
            parameter.opts[0]
            if isinstance(parameter, click.Option)
            else parameter.make_metavar(click.Context(command))
        )
        if name == named:
            break
        if parameter.required:
            given += ["x"] if isinstance(parameter, click.Argument) else [parameter.opts[0], "x"]
    code, said = typed([*path, *given], monkeypatch, capsys)
    assert (code, named.strip("[].") in said) == (2, True)


def options() -> list[tuple[tuple[str, ...], click.Option]]:
    """Those of single commands that do not take just any text."""
    return [
        (path, parameter)
        for path, command in COMMANDS.items()
        for parameter in command.params
        if isinstance(parameter, click.Option)
        and parameter.name not in OF_SETTINGS
        and not parameter.is_flag
        and not isinstance(parameter.type, click.types.StringParamType | click.Path)
    ]


@pytest.mark.parametrize(("path", "option"), options(), ids=str)
@pytest.mark.parametrize("value", ["many", ""])
def test_a_value_that_is_none(
    path: tuple[str, ...],
    option: click.Option,
    value: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Of an option of a command: it is named."""
    code, said = typed([*path, option.opts[0], value], monkeypatch, capsys)
    assert (code, option.opts[0] in said) == (2, True)


def wrong_values(setting: Setting) -> list[str]:
    if setting.about.choices:
        return ["perhaps", ""]
    if setting.type is bool:
        return ["perhaps", "", "2"]
    if setting.type is int:
        return ["many", "", "1.5x", "9" * 30, "-1", "1 2", "0x10", "\u0663"]
    if setting.type is float:
        return ["many", "", "5 parsecs", "-1", "nan", "inf", "1e400", "9" * 30, "\u0663"]
    return ["a\0b"]


RUN = ["run", "--queue-source", "stomp://h", "--database", "dbname=x"]
SERVE = ["serve", *RUN[1:]]
# Every source of a value leads to the same check: one value shows that.
VALUES = [
    (source, setting, value)
    for setting in SETTINGS
    for source, values in (
        ("flag", wrong_values(setting)),
        ("variable", wrong_values(setting)[:1]),
        ("toml", wrong_values(setting)[:1]),
    )
    for value in values
]


@pytest.mark.parametrize(
    ("source", "setting", "value"), VALUES, ids=lambda each: getattr(each, "name", repr(each)[:12])
)
def test_a_setting_that_is_wrong(
    setting: Setting,
    value: str,
    source: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Wherever it stands, its flag is named, and where it stands."""
    arguments, where = ["config"], "ingest.toml"
    if source == "flag" and setting.type is not bool:
        arguments, where = ["config", setting.flag, value], setting.flag
    elif source == "variable" and "\0" not in value:
        monkeypatch.setenv(setting.variable, value)
        where = setting.variable
    else:
        text = value.replace("\0", "\\u0000")
        (tmp_path / "ingest.toml").write_text(f'{setting.name} = "{text}"\n')
    code, said = typed(arguments, monkeypatch, capsys)
    assert (code, setting.flag in said, where in said) == (2, True, True), said


@pytest.mark.parametrize(
    ("arguments", "named", "remedy"),
    [
        (["run", "--queue-source", "localhost"], "--queue-source", "stomp://HOST:PORT"),
        (["run", "--queue-source", "stomp://h:port"], "--queue-source", "a number"),
        (["run", "--queue-source", "stomp://h", "--queue-type", "amqp"], "--queue-type", "stomp"),
        (["run", "--queue-source", "stomp://h", "--queue-password-file", "nowhere"], "--queue-password-file", "nowhere"),
        (["run", "--queue-source", "stomp+ssl://h", "--tls-ca-file", "nowhere"], "--tls-ca-file", "nowhere"),
        (["run", "--queue-source", "stomp+ssl://h", "--tls-cert-file", "nowhere"], "--tls-cert-file", "nowhere"),
        ([*RUN, "--producers-file", "nowhere"], "--producers-file", "nowhere"),
        ([*RUN, "--instance", "a/b"], "--instance", "letters"),
        (["run", "--queue-source", "stomp://127.0.0.1:1", "--database", "host"], "--database", "quote values"),
        (["run", "--queue-source", "stomp://127.0.0.1:1", "--database", "hots=x"], "--database", "quote values"),
        (["run", "--queue-source", "stomp://127.0.0.1:1", "--database", "port=x host=127.0.0.1"], "--database", "x"),
        (["run", "--body-bytes-max", "200MiB"], "--body-bytes-max", "window_bytes_max"),
        (["run", "--facts-blocklist", "~["], "--facts-blocklist", "~["),
        (["run", "--facts-volatile", "~("], "--facts-volatile", "~("),
        (["run", "--config", "nowhere.toml"], "--config", "nowhere.toml"),
        (["run", "--config", "."], "--config", "directory"),
        (["run", "--puppet-conf", "nowhere.conf"], "--puppet-conf", "nowhere.conf"),
        ([*SERVE, "--listen", "8080"], "--listen", "HOST:PORT"),
        ([*SERVE, "--listen", "a:b"], "--listen", "HOST:PORT"),
        ([*SERVE, "--listen", "127.0.0.1:99999"], "--listen", ""),
        ([*SERVE, "--ssl-cert", "nowhere"], "--ssl-", ""),
        ([*SERVE, "--listen", "0.0.0.0:0"], "--plain-http", ""),
        ([*SERVE, "--plan-file", "nowhere"], "--plan-file", "nowhere"),
        (["run", "--plan-file", "."], "--plan-file", "directory"),
        (["status", "--plan-file", "wrong.json"], "--plan-file", "ingest capacity --output"),
        (["run", "--listen", "8080"], "--listen", "HOST:PORT"),
        (["run", "--listen", "127.0.0.1:99999"], "--listen", "HOST:PORT"),
        (["run", "--listen", "192.0.2.1:8080"], "--listen", "another HOST:PORT"),
        (["run", "--metrics-host", "192.0.2.1"], "--metrics-port", "another metrics_port"),
        (["run", "--metrics-host", "no such host"], "--metrics-port", "metrics_host"),
        (["run", "--metrics-host", "unix:/nowhere/at/all"], "--metrics-host", "another directory"),
        (["run", "--data-dir", ""], "--data-dir", "name a directory"),
        (["run", "--data-dir", "wrong.json"], "--data-dir", "no directory"),
        (["run", "--data-dir", "wrong.json/below/it"], "--data-dir", "no directory"),
        (["run", "--metrics-host", "unix:"], "--metrics-host", "unix:DIRECTORY/FILE"),
        (["run", "--queue-source", ","], "--queue-source", "stomp://HOST:PORT"),
        (["run", "--workers", "\u0663"], "--workers", "a whole number"),
        (["run", "--instance", "a" * 65], "--instance", "1 to 64"),
        (["run", "--embedded-broker-listen", "61612"], "--embedded-broker-listen", "HOST:PORT"),
        (["run", "--embedded-broker-listen", "0.0.0.0:61612"], "--embedded-broker-cert-file", "name a certificate"),
        (["run", "--embedded-broker-listen", "[::]:1", "--embedded-broker-cert-file", "wrong.json"],
         "--embedded-broker-cert-file", "wrong.json: no certificate in PEM"),
        (["status", "--instance", "nobody"], "--instance", "no engine 'nobody' runs here"),
        (["publish", "-", "--instance", "nobody"], "--instance", "no engine 'nobody' runs here"),
        (["config", "puppet", "nowhere"], "DIRECTORY", "puppet config print confdir"),
        (["config", "puppet", "wrong.json"], "DIRECTORY", "puppet config print confdir"),
        (["config", "puppet", "."], "--queue-source", "name the broker"),
        (["show", ""], "CERTNAME", "empty"),
        (["node", ""], "NODE", "empty"),
        (["node", "forget", " "], "NODE", "empty"),
        (["query", "exported", "--type", ""], "--type", "empty"),
        (["publish", "-", "--queue-source", "stomp://h:0"], "--queue-source", "61613"),
        (["publish", "-", "--queue-source", "stomp://h:port"], "--queue-source", "a number"),
        (["publish", "-", "--queue-source", "stomp+ssl://h", "--tls-key-file", "k"], "--tls-cert-file", "--tls-key-file"),
        (["nodes", "--database", "host=127.0.0.1 port=99999"], "--database", "99999"),
        (["nodes", "--database", "postgresql://127.0.0.1:port/x"], "--database", "percent-encode"),
        (["nodes", "--stale", "soon", "--database", "dbname=x"], "--stale", "30m"),
        (["node", "forgt", "a"], "forgt", "forget"),
        (["import", "wrong.json", "--queue-source", "stomp://h"], "wrong.json", "ingest export"),
        (["import", "nowhere.tgz", "--queue-source", "stomp://h"], "nowhere.tgz", "No such file"),
        (["import", ".", "--queue-source", "stomp://h"], ".", "directory"),
        (["top", "--every", "nan"], "--every", "0.5"),
        (["demo", "--seconds", "nan"], "--seconds", "3600"),
        (["demo", "--seconds", "inf"], "--seconds", "3600"),
        (["top"], "top", "ingest status --json"),
        (["capacity", "--nodes", "10", "--unchanged", "2"], "--unchanged", "1"),
        (["capacity", "--nodes", "10", "--unchanged", "nan"], "--unchanged", ""),
        (["capacity", "--nodes", "10", "--interval", "0"], "--interval", ""),
        (["capacity", "--nodes", "10", "--templates", "nowhere"], "--templates", "nowhere"),
        (["capacity", "--nodes", "10", "--calibration", "wrong.json"], "wrong.json", ""),
        (["publish", "nowhere.json", "--queue-source", "stomp://h"], "nowhere.json", "No such file"),
        (["publish", ".", "--queue-source", "stomp://h"], ".", "directory"),
        (["publish", "-", "-", "--queue-source", "stomp://h"], "FILE", "twice"),
        (["publish", "-", "--header", "x", "--queue-source", "stomp://h"], "--header", "NAME=VALUE"),
        (["publish", "-"], "--queue-source", "stomp://"),
        (["show", "node"], "--database", "conninfo"),
        (["query", "exported", "--type", "File", "--parameter", "x"], "--parameter", "NAME=VALUE"),
        (["query", "reports", "--since", "yesterday", "--database", "dbname=x"], "--since", "30m"),
        (["quarantine", "show", "one"], "NUMBER", "integer"),
        (["quarantine", "drop", "one"], "NUMBERS", "integer"),
        (["quarantine", "retry"], "--reason", "numbers"),
        (["status", "--metrics-port", "0"], "--metrics-port", "0"),
        (["migrate"], "--database", "conninfo"),
        (["gc"], "--database", "conninfo"),
        (["config", "init", "/nowhere/at/all.toml"], "FILE", "No such file"),
        (["config", "init", ""], "FILE", ""),
        (["capacity"], "--nodes", "--from-database"),
        (["capacity", "--nodes", "10", "--calibration", "nowhere.json"], "nowhere.json", ""),
        (["capacity", "--nodes", "10", "--output", "plan.doc"], "--output", ".html"),
        (["capacity", "--nodes", "10", "--output", "/nowhere/plan.html"], "--output", "/nowhere/plan.html"),
        (["demo", "--nodes", "0"], "--nodes", "1"),
        (["demo", "--seconds", "-1"], "--seconds", "0"),
    ],
    ids=lambda each: " ".join(each) if isinstance(each, list) else "",
)  # fmt: skip
def test_what_makes_no_sense(
    arguments: list[str],
    named: str,
    remedy: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What reads well, and is wrong all the same: the setting and what it should be are in the line."""
    Path("wrong.json").write_text('{"at": "today"}')
    code, said = typed(arguments, monkeypatch, capsys)
    assert (code, named in said, remedy in said) == (2, True, True), said


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.mark.parametrize(
    ("flag", "address"),
    [("--metrics-port", "{}"), ("--listen", "127.0.0.1:{}"), ("--embedded-broker-port", "{}")],
)
def test_a_port_that_is_taken(
    flag: str, address: str, taken: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Told before anything is started, with who tells who has it."""
    arguments = ["run", flag, address.format(taken), "--data-dir", "data"]
    if flag != "--metrics-port":
        arguments += ["--metrics-port", "0"]
    code, said = typed(arguments, monkeypatch, capsys)
    assert (code, flag in said, "ss -ltnp" in said) == (2, True, True), said
    assert not Path("data").exists()


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("workers = \n", "ingest.toml"),
        ("workrs = 2\n", "workrs"),
        ("workrs = 2\n", "is it workers?"),
        ("qqq = 2\n", "'ingest config' lists them"),
        ("[engine]\nworkers = 2\n", "engine"),
        ("workers = [2]\n", "--workers"),
        ("workers = true\n", "--workers"),
        ("workers = 2.5\n", "--workers"),
        ("migrate = 3\n", "--migrate"),
        ("database = 5\n", "--database"),
        ("batch_linger_ms = true\n", "--batch-linger-ms"),
        ("destination = {a = 1}\n", "--destination"),
        ("queue_source = 1979-05-27\n", "--queue-source"),
        ("workers = 2\nworkers = 3\n", "ingest.toml"),
        ("\xff", "ingest.toml"),
    ],
)
def test_a_file_that_is_wrong(
    text: str, named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its syntax, a name, a type: the file or the setting is named."""
    (tmp_path / "ingest.toml").write_bytes(text.encode("latin-1"))
    code, said = typed(["config"], monkeypatch, capsys)
    assert (code, named in said) == (2, True), said
