"""Which publisher may speak for which nodes, by the user that the broker has authenticated.

A broker that tells who published a message does so in a header that its clients cannot choose:

* RabbitMQ refuses a ``user-id`` that is not the login's own (RabbitMQ documentation, "Validated User-ID"); a publisher
  may leave it out, and then speaks for nobody.
* ActiveMQ Classic writes ``JMSXUserID`` over whatever a publisher wrote there, if the broker is configured with
  ``populateJMSXUserID="true"`` and ``useAuthenticatedPrincipalForJMSXUserID="true"``.
* Artemis writes ``_AMQ_VALIDATED_USER`` with ``populate-validated-user``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fnmatch import translate

from ingest.core.printable import escape_unprintable
from ingest.errors import Rejected

PUBLISHER = "publisher"  # the key of the authenticated user among the headers that a descriptor carries
_BY_BROKER = (("artemis", "_AMQ_VALIDATED_USER"), ("activemq", "JMSXUserID"), ("rabbitmq", "user-id"))


def user_header(server: str) -> str:
    """The header in which a broker of that name (``server`` of its CONNECTED) tells who published; empty: none known."""
    name = server.lower()
    return next((header for broker, header in _BY_BROKER if broker in name), "")


class ProducerRules:
    """Patterns of certnames by user. Pure, and quick enough to be asked for each message."""

    def __init__(self, patterns: Mapping[str, Sequence[str]]) -> None:
        """``patterns`` are shell patterns (``*.example.com``), matched with case and from end to end."""
        self._allowed = {
            user: re.compile("|".join(map(translate, globs))) for user, globs in patterns.items() if globs
        }

    def require(self, user: str | None, certname: str) -> None:
        """Raises Rejected where that user may not speak for that node; no user may speak for none."""
        if user is None:
            raise Rejected("unknown_producer", "the broker does not say who published the message")
        pattern = self._allowed.get(user)
        if pattern is None or pattern.match(certname) is None:
            name, node = escape_unprintable(user[:100]), escape_unprintable(certname[:200])
            raise Rejected("forbidden_producer", f"the user {name} may not publish for {node}")
