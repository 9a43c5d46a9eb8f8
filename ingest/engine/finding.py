"""What was found out about one thing that an engine needs, in words for a person, with what to do."""

from __future__ import annotations

import re
from enum import StrEnum

import msgspec

from ingest.errors import IngestError, Misconfigured, Unavailable
from ingest.store.sqlstates import GRANT_AGAIN


class State(StrEnum):
    OK = "ok"
    NOTE = "note"  # it works; somebody should know
    WRONG = "wrong"
    AWAY = "away"  # what is named does not answer


class Finding(msgspec.Struct, frozen=True):
    """``what`` was looked at; ``setting`` is the one that a person would change, where it is one."""

    what: str
    state: State
    text: str
    remedy: str = ""
    setting: str = ""


# What the line of an error says (an expression), and what to do about it; the first that is there counts.
_REMEDIES = (
    (
        "password authentication failed",
        "put the role's password into the passfile (~/.pgpass, or passfile=FILE in the conninfo, mode "
        "0600), or set it anew: ALTER ROLE ... PASSWORD",
    ),
    (
        "no password supplied",
        "name a passfile: passfile=FILE in the conninfo, mode 0600",
    ),
    (
        r"pg_hba\.conf",
        "add a line for this database, role and address to pg_hba.conf on the server, then SELECT "
        "pg_reload_conf()",
    ),
    (
        "encoding",
        "CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0, and name that one",
    ),
    (
        "pool_mode",
        "set pool_mode = session for this database in pgbouncer.ini, or name PostgreSQL's own port",
    ),
    (
        "is a standby",
        "name the primary, or all hosts with target_session_attrs=read-write",
    ),
    (
        "default_transaction_read_only",
        "ALTER ROLE (or DATABASE) ... SET default_transaction_read_only = off",
    ),
    (
        "not permitted to log in",
        "ALTER ROLE ... LOGIN",
    ),
    (
        r'role ".*" does not exist',
        "CREATE ROLE ... LOGIN PASSWORD, or mend user= in the conninfo",
    ),
    (
        r'database ".*" does not exist',
        "createdb -E UTF8, or mend dbname= in the conninfo",
    ),
    (
        "too old",
        "upgrade the server: PostgreSQL 14 to 18",
    ),
    (
        "too many connections",
        "raise max_connections, or end some",
    ),
    (
        "remaining connection slots",
        "raise max_connections, or end some",
    ),
    (
        "permission denied",
        GRANT_AGAIN,
    ),
    (
        "has schema",
        "run 'ingest migrate' as the owner of the schema, or let 'ingest run' do it; where the schema is "
        "newer, install the newer program",
    ),
    (
        "translate host name",
        "mend the host's name, or the resolver of this machine",
    ),
    (
        "no database",
        "start PostgreSQL, or mend host and port in the conninfo; is listen_addresses set, and no "
        "firewall between?",
    ),
    (
        "refused the login",
        "mend user and password: in queue_source, or in the file of queue_password_file; at RabbitMQ: "
        "rabbitmqctl change_password USER, set_permissions USER '.*' '.*' '.*'",
    ),
    (
        "wants a certificate",
        "name one with its key that the broker's CA has signed: tls_cert_file, tls_key_file",
    ),
    (
        "is not valid for|mismatch",
        "name the broker as its certificate does, or give it one for this name",
    ),
    (
        "is not trusted",
        "name the CA that signed it: tls_ca_file",
    ),
    (
        "does not speak TLS",
        "write stomp:// instead of stomp+ssl://, or name its TLS port",
    ),
    (
        "no TLS with",
        "is this its TLS port? At RabbitMQ stomp.listeners.ssl.1, by custom 61614",
    ),
    (
        "does not speak STOMP",
        "name the port of its STOMP listener: 61613 by custom; at RabbitMQ: rabbitmq-plugins enable "
        "rabbitmq_stomp",
    ),
    (
        "does not answer in STOMP",
        "name the port of its STOMP listener: 61613 by custom, 5672 is AMQP; at RabbitMQ: "
        "rabbitmq-plugins enable rabbitmq_stomp",
    ),
    (
        "instead of CONNECTED",
        "is it a STOMP port, and the login right? 61613 by custom; at RabbitMQ: rabbitmq-plugins enable "
        "rabbitmq_stomp",
    ),
    (
        "broke off the STOMP handshake",
        "is it a STOMP port? 61613 by custom; at RabbitMQ: rabbitmq-plugins enable rabbitmq_stomp",
    ),
    (
        "no STOMP broker",
        "start it, mend host and port; at RabbitMQ the plugin opens the port: rabbitmq-plugins enable "
        "rabbitmq_stomp",
    ),
    (
        "Permission denied",
        "let the user that runs this read it: chown, chmod 0600; a unit gets it by LoadCredential=",
    ),
    (
        "No such file",
        "make it, or mend the path",
    ),
)


def wrong(what: str, text: str, remedy: str, setting: str = "") -> Finding:
    return Finding(what, State.WRONG, text, remedy, setting)


def found_wrong(what: str, error: IngestError) -> Finding:
    """An error as a finding, with what mends it."""
    text = str(error)
    remedy = next((remedy for said, remedy in _REMEDIES if re.search(said, text)), "")
    setting = error.setting if isinstance(error, Misconfigured) else ""
    state = State.AWAY if isinstance(error, Unavailable) else State.WRONG
    if not remedy:
        remedy = f"change {setting}: its line says how" if setting else "its line says what; then again"
    return Finding(what, state, text, remedy, setting)
