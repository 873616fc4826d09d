"""Events of units and exposures to one flag, posted to the parts behind the intake."""

from __future__ import annotations

import json

from ldinstrument.devserver.api.metric_rules import checked
from ldinstrument.devserver.database import Database
from ldinstrument.devserver.events.bodies import parse_array
from ldinstrument.devserver.events.event_log import EventLog
from ldinstrument.devserver.events.post_rows import rows_of_post
from ldinstrument.devserver.events.received import Post
from ldinstrument.devserver.readout.readout_reader import ReadoutReader
from ldinstrument.devserver.server import SCHEMA

LATENCY = {
    "key": "latency",
    "kind": "custom",
    "eventKey": "latency",
    "isNumeric": True,
    "unit": "ms",
    "successCriteria": "LowerThanBaseline",
    "eventDefault": {"disabled": True},
}


class Server:
    """The parts behind the intake, without the network."""

    def __init__(self, path: str | None = None):
        self.database = Database(path, SCHEMA)
        self.event_log = EventLog(self.database)
        self.reader = ReadoutReader(self.database, self.event_log)
        self.posts = 0

    def define(self, **fields: object) -> dict:
        metric = checked({**LATENCY, **fields}, ["user", "request"])
        self.database.put("metric", "default", metric["key"], metric)
        return metric

    def post(self, *events: dict) -> None:
        self.posts += 1
        body = json.dumps(events).encode()
        rows = rows_of_post(body, parse_array(body), 99, self.event_log.filters())
        self.event_log.record(Post("/bulk", f"p{self.posts}", 202, 0, len(events), False, 99), rows)

    def row(self, variation: int = 0, metric: str = "latency", iteration: int | None = None):
        return self.reader.read(iteration=iteration).row(metric, "f", variation)


def exposure(unit: str, variation: int = 0, at: int = 1, kind: str = "user") -> dict:
    return {
        "kind": "feature",
        "creationDate": at,
        "key": "f",
        "variation": variation,
        "value": f"v{variation}",
        "reason": {"kind": "FALLTHROUGH", "inExperiment": True},
        "context": {"kind": kind, "key": unit},
    }


def event(unit: str, value: object = 1.0, at: int = 2, key: str = "latency", **data: object):
    context = {"kind": "user", "key": unit}
    found = {"kind": "custom", "creationDate": at, "key": key, "context": context}
    return {**found, "metricValue": value, **({"data": data} if data else {})}
