"""A POST to a local LaunchDarkly, and the threads that it has beside those of other tests."""

from __future__ import annotations

import threading

import requests

from ldinstrument.devserver import LocalLaunchDarkly

HEADERS = {"Authorization": "sdk-key"}


EVENT = {"kind": "custom", "key": "k", "creationDate": 1, "context": {"kind": "user", "key": "u"}}


def send(ld: LocalLaunchDarkly, *events: dict) -> requests.Response:
    with requests.Session() as session:
        session.trust_env = False
        return session.post(ld.url + "/bulk", json=list(events), headers=HEADERS, timeout=60)


_elsewhere: set[threading.Thread] = set()


def note_threads_of_others() -> None:
    """Leave out what runs now: fixtures of other folders may keep a server for the whole run."""
    _elsewhere.clear()
    _elsewhere.update(threading.enumerate())


def ours() -> list[str]:
    threads = set(threading.enumerate()) - _elsewhere
    return [thread.name for thread in threads if thread.name.startswith("ldinstrument-devserver")]
