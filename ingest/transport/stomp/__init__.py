"""STOMP, as the engine speaks it: ``codec`` is bytes, ``opening`` the way in, ``client`` the rest; ``address`` is what
the settings say of a broker."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ingest.config.settings import Config
    from ingest.transport.stomp.address import StompBroker


def stomp(config: Config) -> list[StompBroker]:
    """The entry point of this transport. Raises Misconfigured."""
    # Here, because the embedded broker, whose memory is counted, needs the codec and nothing else of this package.
    from ingest.transport.stomp.address import stomp_brokers

    return stomp_brokers(config)
