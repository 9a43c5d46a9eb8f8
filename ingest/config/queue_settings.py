"""The settings of the queue: where the brokers are, and which kind of message has which queue there."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from ingest.config.front_settings import FrontSettings
from ingest.config.setting import About
from ingest.core.delivery.destinations import kinds_of, taken


class QueueSettings(FrontSettings, frozen=True, kw_only=True):
    """Where messages come from, and where commands that send some put them."""

    queue_type: Annotated[str, About("the transport, by its registered name")] = "stomp"
    queue_source: Annotated[
        str,
        About(
            "the brokers, stomp://user:password@host:port or stomp+ssl://...; several, separated by commas, "
            "are failover; empty starts the embedded broker, for evaluation",
            is_secret=True,
            reloads=True,
        ),
    ] = ""
    queue_password_file: Annotated[
        str,
        About(
            "its first line is the password of each user whom queue_source names without one; read again at SIGHUP",
            reloads=True,
        ),
    ] = ""
    destination: Annotated[
        str,
        About(
            "the queue of catalogs, and of all that is neither facts nor a report; the name that Puppet has always used"
        ),
    ] = "/queue/catalog"
    facts_destination: Annotated[
        str,
        About(
            "facts' queue; empty, or not set where destination is another than its default: the same queue"
        ),
    ] = "/queue/facts"
    reports_destination: Annotated[str, About("reports' queue, as for facts")] = "/queue/reports"
    kinds: Annotated[
        str,
        About(
            "of which of them to take the queues: catalog, facts, report; what comes on a queue is stored, "
            "of whatever kind it is"
        ),
    ] = "catalog,facts,report"

    embedded_broker_port: Annotated[
        int, Meta(ge=0, le=65535), About("the embedded broker's on 127.0.0.1; 0: a free one")
    ] = 61613
    embedded_broker_listen: Annotated[
        str,
        About(
            "HOST:PORT where the embedded broker takes messages of other machines' Puppet servers too, with TLS; "
            "their login is in puppet-login in data_dir; empty: on 127.0.0.1 alone"
        ),
    ] = ""
    embedded_broker_cert_file: Annotated[
        str, About("the certificate that it shows there, PEM, with those between it and the CA")
    ] = ""
    embedded_broker_key_file: Annotated[str, About("its key; empty: it is in the certificate's file")] = ""

    @property
    def destinations(self) -> tuple[str, str, str]:
        """The queue of each kind, by rank."""
        return (
            self.destination,
            self.facts_destination or self.destination,
            self.reports_destination or self.destination,
        )

    @property
    def taken(self) -> dict[str, int]:
        """The queues to take from, the most important first, with the rank of the most important kind there."""
        return taken(self.destinations, kinds_of(self.kinds))
