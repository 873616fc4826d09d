"""What is known of a POST and of an event that arrived."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Post:
    """One POST that reached the event intake.

    Args:
        route: the path.
        payload_id: of its header, empty without.
        status: what the intake decided.
        bytes: the size on the wire.
        events: how many events its body has, also when it is a duplicate.
        duplicate: whether its payload id had been accepted before.
        received: epoch milliseconds.
        agent: the SDK's user agent.
        wrapper: the library around the SDK, where it names one.
        fault: what an injected fault made of it; empty without one.
        error: why it was refused.
    """

    route: str
    payload_id: str
    status: int
    bytes: int
    events: int
    duplicate: bool
    received: int
    agent: str = ""
    fault: str = ""
    error: str = ""
    wrapper: str = ""


class ReceivedEvent(dict[str, Any]):
    """An event as it was sent, with what the server knows beside it: `payload_id`, `received`
    (epoch ms) and `id`.
    """

    __slots__ = ("id", "payload_id", "received")

    def __init__(self, body: dict[str, Any], id: int = 0, payload_id: str = "", received: int = 0):
        super().__init__(body)
        self.id = id
        self.payload_id = payload_id
        self.received = received
