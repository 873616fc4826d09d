"""The backlog: bounded by bytes and by age."""

from __future__ import annotations

import time

from ldinstrument.delivery.backlog import Backlog
from ldinstrument.delivery.payloads import Payload


def test_the_backlog_lets_the_oldest_go():
    """Bounded by bytes; the newest always fits."""
    backlog = Backlog(max_bytes=25, max_age=60)
    payloads = [Payload(b"x" * 10, 1, 1) for _ in range(4)]
    gone = [dropped for payload in payloads for dropped in backlog.add(payload)]
    assert gone == payloads[:2]
    assert (len(backlog), backlog.bytes) == (2, 20)
    assert backlog.add(Payload(b"x" * 100, 1, 1)) == payloads[2:]


def test_the_backlog_lets_the_old_go():
    """Bounded by age."""
    backlog = Backlog(max_bytes=100, max_age=10)
    old, new = Payload(b"x", 1, 1, age_from=time.monotonic() - 11), Payload(b"x", 1, 1)
    backlog.add(old)
    backlog.add(new)
    assert backlog.expired() == [old]
    assert list(backlog) == [new]
