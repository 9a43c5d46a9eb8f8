"""Sessions: the protocol as a client sees it, without a socket."""

from __future__ import annotations

import json

import pytest

from ingest.embedded.broker.broker_session import BrokerSession, Faults
from ingest.embedded.broker.logins import Credentials, Logins
from ingest.embedded.broker.parser import Frame, HangUp, Head, Parser
from ingest.embedded.broker.queues import Queues

Headers = dict[str, str]


class Client:
    """A session and what it has answered."""

    def __init__(
        self,
        queues: Queues | None = None,
        version: str | None = "1.2",
        logins: Logins | None = None,
        faults: Faults | None = None,
    ) -> None:
        self.queues = queues or Queues("b")
        self.written = bytearray()
        self.session = BrokerSession(self.queues, "test", self.written.extend, logins, faults)
        if version:
            self.tell("CONNECT", {"accept-version": version})
            self.answers()

    def tell(self, command: str, headers: Headers | None = None, body: bytes = b"") -> None:
        self.session.check(Head(command, headers or {}, len(body)))
        self.session.handle(Frame(command, headers or {}, body))

    def answers(self) -> list[Frame]:
        parser = Parser()
        parser.version = self.session.version
        frames = list(parser.feed(bytes(self.written)))
        self.written.clear()
        return frames

    def deliveries(self) -> list[Frame]:
        parser = Parser()
        parser.version = self.session.version
        wire = b"".join(
            self.session.message_head(one) + one.message.body + b"\0" for one in self.queues.deliveries()
        )
        return list(parser.feed(wire))

    def refusal(self, command: str, headers: Headers | None = None, body: bytes = b"") -> str:
        with pytest.raises(HangUp) as caught:
            self.tell(command, headers, body)
        return caught.value.text


@pytest.mark.parametrize(
    ("accepted", "agreed"),
    [
        ("1.0", "1.0"),
        ("1.1", "1.1"),
        ("1.0,1.1", "1.1"),
        ("1.2,1.0", "1.2"),
        ("1.1, 1.2, 2.0", "1.2"),
        (None, "1.0"),
    ],
)
def test_the_best_common_version_is_agreed(accepted: str | None, agreed: str) -> None:
    """A client that names none speaks 1.0."""
    client = Client(version=None)
    client.tell("STOMP", {} if accepted is None else {"accept-version": accepted})
    (connected,) = client.answers()
    assert connected.command == "CONNECTED"
    assert connected.headers.get("version") == (agreed if accepted else None)
    assert connected.headers["server"] == "puppet-ingest-embedded/0.1"
    assert client.session.version == agreed


def test_no_common_version_is_an_error_that_names_ours() -> None:
    """The ERROR says what we speak."""
    client = Client(version=None)
    with pytest.raises(HangUp) as caught:
        client.tell("CONNECT", {"accept-version": "3.0"})
    assert b"version:1.0,1.1,1.2" in client.session.error(caught.value)


def test_connect_comes_first() -> None:
    """Whoever is not connected is heard no further, and sends no body."""
    client = Client(version=None)
    assert client.refusal("SEND", {"destination": "/queue/a"}, b"body") == "CONNECT comes first"
    assert client.queues.depths() == {}


def test_only_send_has_a_body() -> None:
    """The others are refused before their body is read."""
    assert Client().refusal("ACK", {"id": "x"}, b"body") == "ACK has no body"


@pytest.mark.parametrize(
    "headers", [{}, {"login": "user", "passcode": "wrong"}, {"login": "x", "passcode": "secret"}]
)
def test_a_wrong_login_is_refused(headers: Headers) -> None:
    """Both have to be right, and the refusal repeats neither."""
    client = Client(version=None, logins=Logins(Credentials("user", "secret")))
    assert client.refusal("CONNECT", headers) == "login refused"
    client.tell("CONNECT", {"login": "user", "passcode": "secret"})
    assert client.answers()[0].command == "CONNECTED"


def test_a_producers_login_only_sends() -> None:
    """It takes no message from a queue, and learns nothing of them; the other login is not restricted."""
    logins = Logins(Credentials("ingest", "all"), Credentials("puppet", "some"))
    producer = Client(version=None, logins=logins)
    assert producer.refusal("CONNECT", {"login": "puppet", "passcode": "all"}) == "login refused"
    producer.tell("CONNECT", {"login": "puppet", "passcode": "some"})
    producer.tell("SEND", {"destination": "/queue/catalog"}, b"x")
    said = "this login may only send messages"
    assert producer.refusal("SUBSCRIBE", {"destination": "/queue/catalog", "id": "1"}) == said
    assert producer.refusal("SEND", {"destination": "/admin/depths", "reply-to": "/queue/catalog"}) == said
    engine = Client(producer.queues, version=None, logins=logins)
    engine.tell("CONNECT", {"login": "ingest", "passcode": "all"})
    engine.tell("SUBSCRIBE", {"destination": "/queue/catalog", "id": "1"})
    assert [frame.body for frame in engine.deliveries()] == [b"x"]


@pytest.mark.parametrize(
    "destination",
    ["/queue/other", "/queue/catalog/", "queue/catalog", "/queue/CATALOG", "/topic/catalog", "\0", " "],
)
def test_a_producers_login_sends_where_somebody_takes_it(destination: str) -> None:
    """What lies in a queue of nobody's stays until nobody may send any more."""
    logins = Logins(
        Credentials("ingest", "all"),
        Credentials("puppet", "some"),
        frozenset({"/queue/catalog", "/queue/facts"}),
    )
    producer = Client(version=None, logins=logins)
    producer.tell("CONNECT", {"login": "puppet", "passcode": "some"})
    producer.tell("SEND", {"destination": "/queue/facts"}, b"x")
    said = "this login may send to /queue/catalog, /queue/facts"
    assert producer.refusal("SEND", {"destination": destination, "receipt": "r"}) == said
    assert producer.queues.depths().keys() == {"/queue/facts"}
    engine = Client(producer.queues, version=None, logins=logins)
    engine.tell("CONNECT", {"login": "ingest", "passcode": "all"})
    engine.tell("SEND", {"destination": "/queue/other"}, b"x")


@pytest.mark.parametrize(
    ("asked", "agreed"),
    [("0,0", (0, 0)), ("1000,2000", (2000, 1000)), ("10,0", (0, 100)), ("0,10", (100, 0)), (None, (0, 0))],
)
def test_heart_beats_are_agreed(asked: str | None, agreed: tuple[int, int]) -> None:
    """The larger of what one side can and the other wants; 0 is none."""
    client = Client(version=None)
    client.tell("CONNECT", {"accept-version": "1.2"} | ({"heart-beat": asked} if asked else {}))
    assert (client.session.send_every_ms, client.session.expect_every_ms) == agreed


@pytest.mark.parametrize("version", ["1.0", "1.1", "1.2"])
def test_headers_of_a_send_reach_the_consumer(version: str) -> None:
    """All but the broker's own, which a producer cannot forge."""
    client = Client(version=version)
    sent = {"certname": "a.example.com", "version": "9", "content-type": "application/json", "odd": "a\\b"}
    forged = {"message-id": "x", "subscription": "x", "ack": "x", "redelivered": "true", "receipt": "r"}
    client.tell("SEND", {"destination": "/queue/a", **sent, **forged}, b"body")
    client.tell("SUBSCRIBE", {"id": "s", "destination": "/queue/a", "ack": "client-individual"})
    (message,) = client.deliveries()
    own = {"subscription": "s", "message-id": "b-1", "destination": "/queue/a", "content-length": "4"}
    assert message.headers == sent | own | ({"ack": "b-1.1"} if version == "1.2" else {})
    assert bytes(message.body) == b"body"


@pytest.mark.parametrize(
    ("version", "acknowledgement"),
    [
        ("1.0", {"message-id": "b-1"}),
        ("1.1", {"message-id": "b-1", "subscription": "s"}),
        ("1.2", {"id": "b-1.1"}),
    ],
)
def test_each_version_acknowledges_in_its_own_way(version: str, acknowledgement: Headers) -> None:
    """message-id, with the subscription, or the ack header; a second time is an ERROR."""
    client = Client(version=version)
    client.tell("SEND", {"destination": "/queue/a"})
    client.tell("SUBSCRIBE", {"id": "s", "destination": "/queue/a", "ack": "client"})
    assert len(client.deliveries()) == 1
    client.tell("ACK", acknowledgement | {"receipt": "r"})
    assert client.queues.depths()["/queue/a"].unacknowledged == 0
    assert [frame.headers for frame in client.answers()] == [{"receipt-id": "r"}]
    assert "ACK of a message" in client.refusal("ACK", acknowledgement)


def test_client_is_not_cumulative_in_1_0() -> None:
    """Its specification acknowledges the message that is named, and no other."""
    client = Client(version="1.0")
    client.tell("SUBSCRIBE", {"destination": "/queue/a", "ack": "client"})
    for _ in range(2):
        client.tell("SEND", {"destination": "/queue/a"})
    _, second = client.deliveries()
    client.tell("ACK", {"message-id": second.headers["message-id"]})
    assert client.queues.depths()["/queue/a"].unacknowledged == 1


def test_a_nacked_message_is_redelivered() -> None:
    """It says so, and its old ack id is of no use any more."""
    client = Client()
    client.tell("SEND", {"destination": "/queue/a"})
    client.tell("SUBSCRIBE", {"id": "s", "destination": "/queue/a", "ack": "client-individual"})
    (first,) = client.deliveries()
    assert "redelivered" not in first.headers
    client.tell("NACK", {"id": first.headers["ack"]})
    (again,) = client.deliveries()
    assert again.headers["redelivered"] == "true"
    assert "ACK of a message" in client.refusal("ACK", {"id": first.headers["ack"]})


@pytest.mark.parametrize("header", ["prefetch-count", "activemq.prefetchSize"])
def test_prefetch_is_taken_from_either_header(header: str) -> None:
    """As RabbitMQ and ActiveMQ call it."""
    client = Client()
    for _ in range(5):
        client.tell("SEND", {"destination": "/queue/a"})
    client.tell("SUBSCRIBE", {"id": "s", "destination": "/queue/a", "ack": "client", header: "3"})
    assert len(client.deliveries()) == 3


def test_prefetch_is_100_unless_said() -> None:
    """Nothing is unbounded."""
    client = Client()
    for _ in range(101):
        client.tell("SEND", {"destination": "/queue/a"})
    client.tell("SUBSCRIBE", {"id": "s", "destination": "/queue/a", "ack": "client"})
    assert len(client.deliveries()) == 100


SUBSCRIBE = {"id": "s", "destination": "/queue/a"}


@pytest.mark.parametrize(
    ("command", "headers", "reason"),
    [
        ("BEGIN", {"transaction": "t"}, "transactions"),
        ("COMMIT", {"transaction": "t"}, "transactions"),
        ("ABORT", {"transaction": "t"}, "transactions"),
        ("SEND", {"destination": "/queue/a", "transaction": "t"}, "transactions"),
        ("ACK", {"id": "x", "transaction": "t"}, "transactions"),
        ("ACK", {}, "header id"),
        ("NACK", {"id": "b-1.1"}, "NACK of a message"),
        ("SUBSCRIBE", {"id": "s"}, "header destination"),
        ("SUBSCRIBE", {"destination": "/queue/a"}, "header id"),
        ("SUBSCRIBE", SUBSCRIBE | {"ack": "perhaps"}, "ack is one of"),
        ("SUBSCRIBE", SUBSCRIBE | {"prefetch-count": "0"}, "1 to 65535"),
        ("SUBSCRIBE", SUBSCRIBE | {"prefetch-count": "65536"}, "1 to 65535"),
        ("SUBSCRIBE", SUBSCRIBE | {"prefetch-count": "many"}, "not a number"),
        ("SUBSCRIBE", {"id": "s", "destination": "/admin/depths"}, "reply-to"),
        ("UNSUBSCRIBE", {"id": "s"}, "no subscription"),
        ("SEND", {"destination": "/admin/depths"}, "header reply-to"),
        ("SEND", {}, "needs a destination"),
        ("CONNECT", {}, "already"),
        ("MESSAGE", {}, "there is no 'MESSAGE'"),
        ("send", {"destination": "/queue/a"}, "there is no 'send'"),
    ],
)
def test_what_makes_no_sense_is_an_error(command: str, headers: Headers, reason: str) -> None:
    """With the reason, and the receipt that was asked for."""
    client = Client()
    with pytest.raises(HangUp, match=reason) as caught:
        client.tell(command, headers | {"receipt": "r-1"})
    error = client.session.error(caught.value)
    assert error.startswith(b"ERROR\nmessage:")
    assert b"\nreceipt-id:r-1\n" in error
    assert client.answers() == []


def test_a_subscription_id_is_used_once() -> None:
    """Until it is unsubscribed."""
    client = Client()
    client.tell("SUBSCRIBE", SUBSCRIBE)
    assert "already" in client.refusal("SUBSCRIBE", SUBSCRIBE)
    client.tell("UNSUBSCRIBE", {"id": "s"})
    client.tell("SUBSCRIBE", SUBSCRIBE)


def test_a_1_0_client_unsubscribes_by_destination() -> None:
    """It need not have given an id."""
    client = Client(version="1.0")
    client.tell("SUBSCRIBE", {"destination": "/queue/a"})
    client.tell("UNSUBSCRIBE", {"destination": "/queue/a"})
    assert client.queues.depths() == {}


def test_depths_are_told_on_request() -> None:
    """The answer is one message on the destination that reply-to names."""
    client = Client()
    client.tell("SEND", {"destination": "/queue/a"}, b"12345")
    client.tell("SUBSCRIBE", {"id": "s", "destination": "/reply"})
    client.tell("SEND", {"destination": "/admin/depths", "reply-to": "/reply", "correlation-id": "7"})
    (answer,) = client.deliveries()
    assert answer.headers["correlation-id"] == "7"
    assert json.loads(bytes(answer.body)) == {
        "/queue/a": {"ready": 1, "unacknowledged": 0, "consumers": 0, "bytes": 5},
        "/reply": {"ready": 0, "unacknowledged": 0, "consumers": 1, "bytes": 0},
    }


def test_answers_that_nobody_reads_are_bounded() -> None:
    """They are let in past the memory limit, so they need one of their own."""
    client = Client()
    for _ in range(100):
        client.tell("SEND", {"destination": "/admin/depths", "reply-to": "/reply"})
    assert "nobody reads" in client.refusal("SEND", {"destination": "/admin/depths", "reply-to": "/reply"})


def test_a_text_message_may_come_without_its_length() -> None:
    """As from ActiveMQ, when a test wants it, and only where no NUL is in the body."""
    client = Client(faults=Faults(omit_content_length=True))
    client.tell("SUBSCRIBE", SUBSCRIBE)
    client.tell("SEND", {"destination": "/queue/a"}, b"text")
    client.tell("SEND", {"destination": "/queue/a"}, b"\0")
    text, binary = client.deliveries()
    assert "content-length" not in text.headers
    assert binary.headers["content-length"] == "1"
    assert (bytes(text.body), bytes(binary.body)) == (b"text", b"\0")
