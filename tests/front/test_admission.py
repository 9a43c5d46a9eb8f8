"""Who gets in by what, and for whom he may speak."""

from __future__ import annotations

import hashlib
import http.client
import json
import ssl
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trustme

from lab.front import Answer, Front, ask
from tests.front.conftest import Serve
from tests.front.test_archive import facts, form, made
from tests.front.test_clients import eventually
from tests.front.test_commands import CMD, payload

TOKENS = {"jane": "s3cret-of-jane", "robot": "s3cret-of-robot"}
NODES, VERSION = "/pdb/query/v4/nodes", "/pdb/meta/v1/version"


def line(name: str, *more: str) -> str:
    return " ".join([name, hashlib.sha256(TOKENS[name].encode()).hexdigest(), *more])


@pytest.fixture
def tokens_file(tmp_path: Path) -> Path:
    file = tmp_path / "tokens"
    file.write_text(f"# people\n\n{line('jane')}\n{line('robot', 'commands')}\n")
    return file


def by(token: str | None) -> dict[str, str]:
    return {} if token is None else {"X-Authentication": token}


def command(front: Front, headers: dict[str, str]) -> Answer:
    return front.post(CMD + "?command=replace_catalog&version=9&certname=n1", payload(), headers=headers)


def test_a_token_lets_people_in(serve: Serve, tokens_file: Path) -> None:
    """With a file of tokens nobody gets in without one, or with another; some are for queries alone. The file has digests."""
    front = serve("--tokens-file", str(tokens_file))
    for path in (NODES, VERSION, "/status/v1/simple", "/metrics/v2/list", "/nowhere"):
        for wrong in (
            None,
            "",
            "x",
            TOKENS["jane"] + "x",
            hashlib.sha256(b"s3cret-of-jane").hexdigest(),
            "x" * 5000,
        ):
            answer = front.get(path, headers=by(wrong))
            assert answer.status == 401, (path, wrong, answer.text)
            assert "X-Authentication" in answer.text
    for token in TOKENS.values():
        assert front.get(NODES, headers=by(token)).json == []
    refused = command(front, by(TOKENS["jane"]))
    assert (refused.status, "jane" in refused.json["error"]) == (403, True)
    assert command(front, by(TOKENS["robot"])).status == 200
    assert command(front, {}).status == 401
    assert not any(token in front.log.read_text() for token in TOKENS.values())


def test_who_is_taken_out_of_the_file_is_out(serve: Serve, tokens_file: Path) -> None:
    """Without a restart; a file that cannot be read changes nothing, and is told of."""
    front = serve("--tokens-file", str(tokens_file))
    assert front.get(NODES, headers=by(TOKENS["jane"])).status == 200  # it has read the file by then
    tokens_file.write_text("nonsense\n")
    eventually(
        lambda: front.get(NODES, headers=by(TOKENS["jane"])) and "tokens_not_read" in front.log.read_text(),
        "told of",
    )
    assert front.get(NODES, headers=by(TOKENS["jane"])).status == 200
    tokens_file.write_text(line("robot") + "\n")
    eventually(lambda: front.get(NODES, headers=by(TOKENS["jane"])).status == 401, "out")
    assert front.get(NODES, headers=by(TOKENS["robot"])).status == 200


WRONG: list[tuple[list[str], str]] = [
    (["--tokens-file", "{file}"], "--tokens-file: {file}: line 1 is not NAME SHA256-OF-THE-TOKEN"),
    (["--tokens-file", "{file}.none"], "--tokens-file: {file}.none: No such file"),
    (["--bind-submitters"], "--bind-submitters: goes by certificates"),
    (["--submitters-allowlist", "{file}"], "--submitters-allowlist: are exceptions from --bind-submitters"),
]


@pytest.mark.parametrize(("flags", "said"), WRONG)
def test_what_does_not_fit_is_said(tmp_path: Path, flags: list[str], said: str) -> None:
    """At the start, with the name of the setting, and never with what may be a token."""
    file = tmp_path / "file"
    file.write_text("jane open-secret\n")
    done = subprocess.run(
        [sys.executable, "-m", "ingest", "serve", "--database", "dbname=x", "--queue-source", "stomp://127.0.0.1:1",
         *(flag.format(file=file) for flag in flags)],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2
    assert said.format(file=file) in done.stderr
    assert "open-secret" not in done.stderr
    assert "Traceback" not in done.stderr


class Authority:
    """Of the servers' and clients' certificates."""

    def __init__(self, directory: Path) -> None:
        self._ca = trustme.CA()
        self._directory = directory
        self.ca_file = directory / "ca.pem"
        self._ca.cert_pem.write_to_path(self.ca_file)

    def issue(self, name: str) -> Path:
        file = self._directory / f"{name}.pem"
        self._ca.issue_cert(name, common_name=name).private_key_and_cert_chain_pem.write_to_path(file)
        return file

    def ask(
        self,
        front: Front,
        name: str | None,
        path: str,
        body: Any = None,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        context = ssl.create_default_context(cafile=str(self.ca_file))
        if name is not None:
            context.load_cert_chain(self.issue(name))
        connection = http.client.HTTPSConnection("localhost", front.port, context=context, timeout=30)
        try:
            sent = {"Content-Type": "application/json"} | (headers or {})
            raw = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
            connection.request("GET" if body is None else "POST", path, raw, sent)
            answer = connection.getresponse()
            return Answer(answer.status, dict(answer.getheaders()), answer.read())
        finally:
            connection.close()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def serve_tls(serve: Serve, authority: Authority) -> Callable[..., Front]:
    server = str(authority.issue("localhost"))
    tls = ["--ssl-cert", server, "--ssl-key", server, "--ssl-ca-cert", str(authority.ca_file)]
    return lambda *flags: serve(*tls, *flags)


def test_with_tls_a_token_stands_in_for_a_certificate(
    serve_tls: Callable[..., Front], authority: Authority, tokens_file: Path, tmp_path: Path
) -> None:
    """One of both is enough; a certificate that is not listed gets no further than without tokens."""
    (tmp_path / "allowed").write_text("n1\n")
    front = serve_tls("--tokens-file", str(tokens_file), "--certificate-allowlist", str(tmp_path / "allowed"))
    assert authority.ask(front, None, NODES).status == 401
    assert authority.ask(front, None, NODES, headers=by("x")).status == 401
    assert authority.ask(front, None, NODES, headers=by(TOKENS["jane"])).status == 200
    assert authority.ask(front, "n1", NODES).status == 200
    assert authority.ask(front, "n2", NODES).status == 403
    assert authority.ask(front, "n2", NODES, headers=by(TOKENS["jane"])).status == 200


def test_a_bound_submitter_speaks_for_itself_alone(
    serve_tls: Callable[..., Front], authority: Authority, tmp_path: Path
) -> None:
    """Whatever form the lie has: the parameter, the payload, both, twice in the payload, in a body that ends the envelope
    early. Queries are free, and the compile servers of the list speak for all."""
    (tmp_path / "compilers").write_text("compile-1\n")
    front = serve_tls("--bind-submitters", "--submitters-allowlist", str(tmp_path / "compilers"))
    one = CMD + "?command=replace_catalog&version=9&certname="
    mine, other = payload(certname="n1"), payload(certname="n2")
    assert authority.ask(front, "n1", one + "n1", mine).status == 200
    assert authority.ask(front, "compile-1", one + "n1", mine).status == 200
    assert authority.ask(front, "n1", NODES).status == 200
    twice = json.dumps(mine).encode()[:-1] + b',"certname":"n2"}'
    escaped = json.dumps(mine).encode()[:-1] + b',"certn\\u0061me":"n2"}'
    early = json.dumps(mine).encode() + b',"certname":"n2","payload":' + json.dumps(other).encode()
    nameless = {name: value for name, value in mine.items() if name != "certname"}
    lies: list[tuple[str, Any]] = [
        (one + "n2", other), (one + "n2", mine), (one + "n1", other), (one + "N1", mine), (one + "n1", twice),
        (one + "n1", escaped), (one + "n1", early), (one + "n1", nameless), (one + "n1", nameless | {"name": "n2"}),
        (one + "n1", json.dumps(json.dumps(other)).encode()), (one + "n1", b"null"), (one + "n1", b"["), (one + "n1", b""),
        (CMD, {"command": "replace catalog", "version": 9, "payload": other}),
        (CMD + "?command=deactivate_node&version=3&certname=n2", {"certname": "n2", "producer_timestamp": "2026-01-01"}),
    ]  # fmt: skip
    for path, body in lies:
        answer = authority.ask(front, "n1", path, body)
        assert answer.status == 403, (path, body, answer.text)
        assert "n1" in answer.json["error"]
    assert (
        authority.ask(front, "n1", CMD, {"command": "replace catalog", "version": 9, "payload": mine}).status
        == 200
    )


def test_an_archive_is_for_those_who_may_send_commands_of_any_node(
    serve: Serve, serve_tls: Callable[..., Front], authority: Authority, tokens_file: Path, tmp_path: Path
) -> None:
    """It is as many commands; to take one out is to query."""
    archive = form(made(("puppetdb-bak/facts/n2.json", facts("n2", 1, x=1))))
    front = serve("--tokens-file", str(tokens_file))
    path, body, headers = "/pdb/admin/v1/archive", archive["body"], archive["headers"]
    for token, status in ((None, 401), (TOKENS["jane"], 403), (TOKENS["robot"], 200)):
        answer = ask(front.port, path, method="POST", body=body, headers=headers | by(token))
        assert answer.status == status, answer.text
    assert front.get(path, headers=by(TOKENS["jane"])).status == 200
    assert front.get(path).status == 401

    (tmp_path / "compilers").write_text("compile-1\n")
    front = serve_tls("--bind-submitters", "--submitters-allowlist", str(tmp_path / "compilers"))
    for name, status in (("n2", 403), ("compile-1", 200)):
        answer = authority.ask(front, name, path, body, headers)
        assert answer.status == status, answer.text
    assert authority.ask(front, "n2", path).status == 200
