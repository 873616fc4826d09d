"""A program that is killed, or exits: `spooling_program.py track|exit URL FOLDER NAME`."""

from __future__ import annotations

import sys
import time
from functools import partial

from ldclient import Config, Context, LDClient
from ldclient.config import HTTPConfig

from ldinstrument.delivery import EventProcessor, Plugin


def main(what: str, url: str, folder: str, name: str) -> None:
    client = LDClient(
        Config(
            "sdk-good",
            base_uri=url,
            events_uri=url,
            stream_uri=url,
            use_ldd=True,
            flush_interval=0.1,
            http=HTTPConfig(connect_timeout=1, read_timeout=1),
            plugins=[Plugin()],
            event_processor_class=partial(
                EventProcessor, spool=folder, first_pause=0.05, longest_pause=0.2
            ),
        )
    )
    context = Context.builder("u-1").name("Ana").build()
    if what == "exit":
        for number in range(100):
            client.track(f"{name}.{number}", context)
        print("exit", time.time(), flush=True)
        return
    print("ready", flush=True)
    number = 0
    while True:
        key = f"{name}.{number}"
        client.track(key, context, {"n": number}, 1.0)
        print(key, time.monotonic(), ".", flush=True)
        number += 1
        if number % 10 == 0:
            time.sleep(0.005)


main(*sys.argv[1:])
