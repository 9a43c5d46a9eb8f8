"""STOMP, as the engine speaks it: ``frames`` are bytes, ``opening`` is the way in, ``connection`` the rest;
``broker`` is what the settings say of it."""

from ingest.transport.stomp.address import STOMP_PORT, StompBroker, stomp, stomp_endpoint
from ingest.transport.stomp.bodies import Message, Space
from ingest.transport.stomp.client import Connection
from ingest.transport.stomp.incoming import BUFFER_BYTES
from ingest.transport.stomp.opening import Endpoint

__all__ = [
    "BUFFER_BYTES",
    "STOMP_PORT",
    "Connection",
    "Endpoint",
    "Message",
    "Space",
    "StompBroker",
    "stomp",
    "stomp_endpoint",
]
