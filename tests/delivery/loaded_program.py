"""Programs that run in a process of their own: `loaded_program.py gevent|killed URL [FOLDER]`."""

from __future__ import annotations

import sys

if sys.argv[1:2] == ["gevent"]:
    from gevent import monkey

    monkey.patch_all()

import json
import os
from functools import partial

from ldclient import Config, LDClient

import ldinstrument as ld


def client_of(url: str, **options: object) -> LDClient:
    """A client that delivers to *url* at a flush."""
    uris = {"base_uri": url, "events_uri": url, "stream_uri": url}
    return LDClient(
        Config(
            "sdk-good", use_ldd=True, flush_interval=3600, plugins=[ld.Plugin()],
            event_processor_class=partial(ld.EventProcessor, **options), **uris,
        )
    )  # fmt: skip


@ld.track_task("load.answer")
def answer() -> int:
    """Do nothing, measured."""
    return 1


def report() -> None:
    """Print the ledger as JSON."""
    stats = ld.stats()
    print(
        json.dumps(
            {
                "recorded": stats.values.recorded,
                "emitted": stats.events.emitted,
                "delivered": stats.events.delivered,
                "dropped": dict(stats.events.dropped),
                "discarded": dict(stats.values.discarded),
            }
        ),
        flush=True,
    )


def in_greenlets(url: str) -> None:
    """300 greenlets, a session each, which give way between runs."""
    import gevent

    client = client_of(url)

    def work(number: int) -> None:
        with ld.session(f"g-{number}", client=client):
            for _ in range(40):
                answer()
                gevent.sleep(0)

    gevent.joinall([gevent.spawn(work, number) for number in range(300)], raise_error=True)
    assert ld.flush(60.0, client).confirmed
    report()


def killed(url: str, folder: str) -> None:
    """Sessions of 100 runs; once a line is printed, everything is on disk, and the process dies."""
    client = client_of(url, spool=folder)
    for number in range(30):
        with ld.session(f"k-{number}", client=client):
            for _ in range(100):
                answer()
    ld.flush(2.0, client)  # refused; on disk by now
    report()
    os._exit(9)


if __name__ == "__main__":
    {"gevent": in_greenlets, "killed": killed}[sys.argv[1]](*sys.argv[2:])
