"""STOMP, as the engine speaks it: ``frames`` are bytes, ``opening`` is the way in, ``connection`` the rest."""

from ingest.connection.connection import READ_BYTES, Connection, Message, Space
from ingest.connection.opening import Endpoint

__all__ = ["READ_BYTES", "Connection", "Endpoint", "Message", "Space"]
