"""Noticing that several workers of one program each keep sessions in their own memory."""

from __future__ import annotations

import atexit
import hashlib
import os
import socket
import sys

from ..delivery.complaints import say

_witness: socket.socket | None = None
_held_by = 0


def watch() -> None:
    """Say once when another worker of this program (or a fork of this one) keeps sessions in memory, too.

    On Linux, siblings find each other by an abstract socket name, which the kernel forgets with its last holder;
    elsewhere only what the environment says (`WEB_CONCURRENCY`) and forks are noticed.
    """
    if _several_by_environment() or not _first_of_its_kind():
        _say()


def forked() -> None:
    """In a forked child: its parent, or a sibling, has a store of its own."""
    _say()


def _say() -> None:
    say(
        "several_workers",
        "memory",
        "several workers keep sessions in memory, each its own: a visitor who meets two of them has two sessions; "
        "use open_store('sqlite:///path') on one host, or 'redis://...' in a fleet",
    )


def _several_by_environment() -> bool:
    try:
        return int(os.environ.get("WEB_CONCURRENCY", "1")) > 1
    except ValueError:
        return False


def _first_of_its_kind() -> bool:
    global _witness, _held_by
    if sys.platform != "linux" or (_witness is not None and _held_by == os.getpid()):
        return True
    what = hashlib.sha256("\0".join([sys.executable, *sys.argv]).encode("utf-8", "replace")).hexdigest()[:16]
    claimed = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        claimed.bind(f"\0ldinstrument-{os.getuid()}-{os.getppid()}-{what}")
    except OSError:
        claimed.close()
        return False
    _witness, _held_by = claimed, os.getpid()
    atexit.register(claimed.close)
    return True
