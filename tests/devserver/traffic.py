"""Events of strangers, with markup wherever they can put some; and an experiment that is won."""

from __future__ import annotations

import random

EVIL = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>'\"&"


def traffic() -> list[dict]:
    """Two exposed units, one of whom converts, and everything an attacker can name."""
    events = []
    for unit, variation in (("a", 0), ("b", 1)):
        context = {"kind": "user", "key": unit}
        reason = {"kind": "FALLTHROUGH", "inExperiment": True}
        events.append(
            {
                "kind": "feature",
                "creationDate": 1,
                "key": "new-prompt",
                "variation": variation,
                "value": EVIL if variation else "plain",
                "reason": reason,
                "context": context,
            }
        )
    events.append(
        {
            "kind": "custom",
            "creationDate": 2,
            "key": "session.duration",
            "metricValue": 1234,
            "data": {"note": EVIL},
            "context": {"kind": "user", "key": "b"},
        }
    )
    events.append({"kind": EVIL, "key": EVIL, "context": {"kind": EVIL, "key": EVIL}})
    events.append(
        {
            "kind": "custom",
            "key": EVIL,
            "context": {"kind": "multi", EVIL: {"key": EVIL}},
            "data": EVIL,
        }
    )
    events.append(
        {
            "kind": "custom",
            "key": {"a": 1},
            "context": {"kind": "multi", "user": None},
            "metricValue": [EVIL],
        }
    )
    events.append({"kind": "custom", "context": 7, "reason": 3, "features": None})
    return events


def exposure(flag: str, unit: str, variation: int, value: str, at: int) -> dict:
    return {
        "kind": "feature",
        "creationDate": at,
        "key": flag,
        "variation": variation,
        "value": value,
        "reason": {"kind": "FALLTHROUGH", "inExperiment": True},
        "context": {"kind": "user", "key": unit},
    }


def custom(key: str, unit: str, value: float, at: int, **data: object) -> dict:
    context = {"kind": "user", "key": unit}
    found = {"kind": "custom", "creationDate": at, "key": key, "context": context}
    return {**found, "metricValue": value, **({"data": data} if data else {})}


def won(flag: str, units: int = 600, start: int = 1_795_422_752_000) -> list[dict]:
    """Answers of `long` take 15 % less time; satisfaction is the same; each unit has a session."""
    rng = random.Random(11)
    events = []
    for i in range(units):
        unit, variation, at = f"visitor-{i}", i % 2, start + i * 1000
        events.append(exposure(flag, unit, variation, ("short", "long")[variation], at))
        took = rng.lognormvariate(6, 0.4) * (0.85 if variation else 1.0)
        events.append(custom("answer.duration", unit, took, at + 900))
        events.append(custom("user.satisfaction", unit, rng.gauss(70, 15), at + 950))
        data = {"sessionId": f"s-{i}", "endReason": "ended", "successes": 1, "failures": 0}
        events.append(custom("session.duration", unit, 1000.0, at + 1000, **data))
    return events
