"""The settings of ``ingest serve``, PuppetDB's interface; ``settings.Config`` has them with all others."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from ingest.config.setting import About

MIB = 1024 * 1024
TIB = MIB * MIB
DAY_S = 86400.0


class FrontSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Named like those of PuppetDB, and of Puppet for TLS."""

    listen: Annotated[
        str,
        About(
            "where PuppetDB's interface is served: HOST:PORT, or [ADDRESS]:PORT; empty: 'ingest serve' takes "
            "127.0.0.1:8080, 'ingest run' serves nothing"
        ),
    ] = ""
    http_workers: Annotated[int, Meta(ge=1, le=64), About("processes that serve it")] = 1
    http_database: Annotated[
        str,
        About(
            "a conninfo for its queries: a role that may only read, or a replica; empty: that of --database",
            is_secret=True,
        ),
    ] = ""
    http_queries_max: Annotated[
        int, Meta(ge=1, le=500), About("queries under way in each of those processes, with a connection each")
    ] = 16
    http_waiting_max: Annotated[
        int,
        Meta(ge=0, le=10_000),
        About("queries that may wait for one of these; whoever comes then is told 503"),
    ] = 200
    http_waiting_s: Annotated[float, Meta(ge=0.1, le=600), About("how long they wait, until the same")] = 30.0
    http_connections_max: Annotated[
        int,
        Meta(ge=1, le=60_000),
        About("clients in each process, idle ones too; whoever comes then is told 503"),
    ] = 2000
    query_timeout_s: Annotated[
        float, Meta(ge=0.1, le=DAY_S), About("one query (PuppetDB's query-timeout-default)")
    ] = 600.0
    client_timeout_s: Annotated[
        float,
        Meta(ge=1, le=3600),
        About("a client that neither sends nor takes anything for that long is let go"),
    ] = 30.0
    command_timeout_s: Annotated[
        float,
        Meta(ge=0.1, le=600),
        About("until the broker must have taken a command; then 503, and the client sends it again"),
    ] = 15.0
    query_bytes_max: Annotated[int, Meta(ge=1024, le=TIB), About("one query")] = 8 * MIB
    ssl_cert: Annotated[
        str, About("the certificate that it serves with, with those between it and the CA; empty: plain HTTP")
    ] = ""
    ssl_key: Annotated[str, About("its key")] = ""
    ssl_ca_cert: Annotated[
        str, About("who signed the clients' certificates: nobody without one gets in; may hold CRLs")
    ] = ""
    ssl_crl: Annotated[
        str, About("a file with certificates that have been revoked, for all of the chain")
    ] = ""
    certificate_allowlist: Annotated[
        str,
        About(
            "a file with the names of the certificates that are let in, one a line; empty: all that are valid"
        ),
    ] = ""
    tokens_file: Annotated[
        str,
        About(
            "a file with the people who get in by a token (X-Authentication) in place of a certificate: "
            "NAME SHA256-OF-THE-TOKEN a line, and 'commands' behind it for those who may send them too"
        ),
    ] = ""
    bind_submitters: Annotated[
        bool, About("a certificate sends commands for the node of its own name alone")
    ] = False
    submitters_allowlist: Annotated[
        str, About("a file with the names that may send for every node, one a line: the compile servers")
    ] = ""
    also: Annotated[
        str,
        About(
            "a PuppetDB that each command is passed on to as well, https://HOST:8081; no answer waits for it"
        ),
    ] = ""
    also_bytes_max: Annotated[
        int,
        Meta(ge=MIB, le=TIB),
        About(
            "what may wait for it on disk (data_dir), in each process; what comes then is dropped and counted"
        ),
    ] = 1024 * MIB
    also_ssl_cert: Annotated[str, About("our certificate for it; empty: that of --ssl-cert")] = ""
    also_ssl_key: Annotated[str, About("its key; empty: that of --ssl-key")] = ""
    also_ssl_ca_cert: Annotated[str, About("who signed its certificate; empty: that of --ssl-ca-cert")] = ""
    plain_http: Annotated[
        bool, About("serve without TLS elsewhere than on loopback, where everybody reads and writes")
    ] = False
