"""How long to wait before the next try. No clock and no dice: whoever waits brings both."""

from __future__ import annotations

# The pause before the next subscription, by how many in a row ended with most of their deliveries open. A broker counts
# each of those as a delivery of every message that it had sent, and a quorum queue drops a message after the twentieth
# (RabbitMQ 4): one failover or a killed receiver costs no time, twenty in a row take a quarter of an hour.
_PAUSES_AFTER_WASTE_S = (0.0, 0.0, 0.5, 2.0, 8.0, 30.0, 60.0)


class Backoff:
    """Pauses between tries, each twice as long as the one before, and spread, so that many do not come back at once."""

    def __init__(self, start_s: float) -> None:
        self._start_s = start_s
        self._next_s = start_s

    def pause_s(self, longest_s: float, chance: float, *, grows: bool = True) -> float:
        """The next pause: between half and all of what is due, by ``chance`` (0 to 1)."""
        due_s = min(self._next_s, longest_s)
        if grows:
            self._next_s = min(due_s * 2, longest_s)
        return due_s * (0.5 + 0.5 * chance)

    def reset(self) -> None:
        self._next_s = self._start_s


def is_waste(received: float, acknowledged: float) -> bool:
    """Whether a connection that ends now has spent more deliveries than it settled."""
    return received - acknowledged > acknowledged


def pause_after_waste_s(in_a_row: int, chance: float) -> float:
    """Before the next subscription."""
    due_s = _PAUSES_AFTER_WASTE_S[min(in_a_row, len(_PAUSES_AFTER_WASTE_S) - 1)]
    return due_s * (0.5 + 0.5 * chance)
