"""The life of the process: what runs before it exits, and around a fork."""

from __future__ import annotations

import atexit
import os
import sys
import threading
from collections.abc import Callable, Iterable

from .diagnostics import guard
from .import_locks import wait_for_imports

Hook = Callable[[], None]

_exit_hooks: list[Hook] = []
_before_fork: list[Hook] = []
_after_fork_in_parent: list[Hook] = []
_after_fork_in_child: list[Hook] = []
_watched_children: set[int] = set()
_watched_threads: set[int] = set()
_forked_by_thread = False
_child_of_thread = False


def on_exit(hook: Hook) -> None:
    """Call *hook* when the interpreter exits, the latest registered first; registering twice is
    once.
    """
    if hook not in _exit_hooks:
        _exit_hooks.append(hook)
        atexit.register(hook)


def on_exit_of_multiprocessing_child(hook: Hook, priority: int = 10) -> None:
    """Call *hook* at the end of this process if `multiprocessing` started it.

    Such a child leaves by `os._exit`, without `atexit`. Once per process.
    """
    processes = sys.modules.get("multiprocessing.process")
    if processes is None or processes.parent_process() is None:
        return
    if os.getpid() in _watched_children:
        return
    from multiprocessing.util import Finalize

    _watched_children.add(os.getpid())
    Finalize(None, hook, exitpriority=priority)


def watch_forking_thread() -> None:
    """In a child that was forked from a thread, run the exit hooks when that thread has ended.

    Nothing ends the interpreter of such a child: it lives until its last thread ends, and ours do
    not end without the hooks. Call this where a thread starts that only an exit hook ends.
    """
    if _child_of_thread and os.getpid() not in _watched_threads:
        _watched_threads.add(os.getpid())
        threading.Thread(target=_exit_after_main, name="ldinstrument.exit", daemon=True).start()


def _exit_after_main() -> None:
    threading.main_thread().join()  # in a forked child, the thread that called fork
    _run(reversed(_exit_hooks))


def _note_forking_thread() -> None:
    global _forked_by_thread
    _forked_by_thread = threading.current_thread() is not threading.main_thread()


def _note_child_of_thread() -> None:
    global _child_of_thread
    _child_of_thread = _child_of_thread or _forked_by_thread


def on_fork(
    *, before: Hook | None = None, in_parent: Hook | None = None, in_child: Hook | None = None
) -> None:
    """Call the hooks around each fork of this process.

    *before* runs the latest registered first (so that locks are taken from the top layer down), the
    others in the order of registration.
    """
    for hook, hooks in (
        (before, _before_fork),
        (in_parent, _after_fork_in_parent),
        (in_child, _after_fork_in_child),
    ):
        if hook is not None and hook not in hooks:
            hooks.append(hook)


def _run(hooks: Iterable[Hook]) -> None:
    for hook in hooks:
        with guard("a fork"):
            hook()


def _run_before_fork() -> None:
    wait_for_imports()
    _run(reversed(_before_fork))


def _run_in_parent() -> None:
    _run(list(_after_fork_in_parent))


def _run_in_child() -> None:
    _run(list(_after_fork_in_child))


on_fork(before=_note_forking_thread, in_child=_note_child_of_thread)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_run_before_fork,
        after_in_parent=_run_in_parent,
        after_in_child=_run_in_child,
    )
