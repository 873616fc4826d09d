"""A local LaunchDarkly, a client, and what an experiment counts of the events that arrived.

The analysis here shares no code with the package: first exposure per unit, events from then on.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ldclient import Config, Context, LDClient

import ldinstrument as ld
from ldinstrument.devserver import LocalLaunchDarkly, experiment_flag


def keys_of(event: Any) -> dict[str, str]:
    """The keys of an event's context by kind."""
    context = event["context"]
    if context["kind"] == "multi":
        return {kind: part["key"] for kind, part in context.items() if kind != "kind"}
    return {context["kind"]: context["key"]}


class Laboratory:
    """A server with the experiment `flag`, and a client that carries our parts.

    Args:
        server: running.
        client: connected to it.
    """

    def __init__(self, server: LocalLaunchDarkly, client: Any) -> None:
        self.server = server
        self.client = client

    def expose(self, who: str | Context, flag: str = "flag") -> Any:
        """Evaluate *flag*; dates around it differ from its own."""
        context = Context.create(who) if isinstance(who, str) else who
        time.sleep(0.003)
        variation = self.client.variation(flag, context, None)
        time.sleep(0.003)
        return variation

    def elsewhere(self, work: Callable[[], Any]) -> Any:
        """Do *work* on a thread that knows no session."""
        results: list[Any] = []
        thread = threading.Thread(target=lambda: results.append(work()))
        thread.start()
        thread.join()
        return results[0]

    def change(self, flag: dict[str, Any]) -> None:
        """Change a flag, and wait until the client has it."""
        self.server.set_flag(flag)
        self.until_served(flag["key"])

    def until_served(self, flag: str = "flag") -> None:
        """Wait until the client evaluates the version of *flag* that the server has: an exposure to
        a later one is another exposure.
        """
        document = self.server.database.document("flag", "", flag)
        assert document is not None
        for _ in range(3000):
            state = self.client.all_flags_state(Context.create("probe")).to_json_dict()
            if state["$flagsState"].get(flag, {}).get("version") == document["version"]:
                return
            time.sleep(0.01)
        raise AssertionError(f"the client never got version {document['version']} of {flag}")

    def version_of_experiment(self, flag: str) -> int | None:
        """The version of *flag*; None while it is no experiment."""
        document = self.server.database.document("flag", "", flag)
        assert document is not None
        return int(document["version"]) if is_experiment(document) else None

    def flush(self) -> None:
        """Deliver everything."""
        assert ld.flush(10, client=self.client) is not None

    # -- the analysis ----------------------------------------------------------------------------
    def exposed_at(self, unit: str, flag: str = "flag", kind: str = "user") -> int:
        """The date of the unit's first exposure."""
        return min(
            event["creationDate"]
            for event in self.server.events("feature")
            if event["key"] == flag
            and event.get("reason", {}).get("inExperiment")
            and keys_of(event).get(kind) == unit
        )

    def counted(self, key: str, unit: str, flag: str = "flag", kind: str = "user") -> list[Any]:
        """The values of the events that the experiment counts for *unit*."""
        exposed = self.exposed_at(unit, flag, kind)
        return [
            event.get("metricValue")
            for event in self.server.custom_events(key)
            if keys_of(event).get(kind) == unit and event["creationDate"] >= exposed
        ]


def is_experiment(flag: dict[str, Any]) -> bool:
    """Whether evaluations of *flag* are exposures."""
    return bool(flag["on"]) and flag["fallthrough"].get("rollout", {}).get("kind") == "experiment"


def client_of(server: LocalLaunchDarkly, key: str = "sdk-local", **options: Any) -> LDClient:
    """A client of *server* with our parts, unless *options* say otherwise."""
    ours: dict[str, Any] = {
        "plugins": [ld.Plugin()],
        "event_processor_class": ld.EventProcessor,
    } | options
    urls = {"base_uri": server.url, "stream_uri": server.url, "events_uri": server.url}
    return LDClient(Config(key, **urls, **ours), start_wait=10)


@contextmanager
def laboratory(*flags: dict[str, Any], **options: Any) -> Iterator[Laboratory]:
    """Run a laboratory with *flags*, or with one experiment called `flag`."""
    with LocalLaunchDarkly(flags=[*flags] or [experiment_flag("flag", ["a", "b"])]) as server:
        client = client_of(server, **options)
        try:
            yield Laboratory(server, client)
        finally:
            client.close()
