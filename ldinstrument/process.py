"""The life of the process: what runs before it exits, and around a fork."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable
from typing import NoReturn

from .diagnostics import diagnostics, guard, raise_if_interrupted
from .imports import wait_for_imports

Hook = Callable[[], None]

_exit_hooks: list[Hook] = []
_before_fork: list[Hook] = []
_after_fork_in_parent: list[Hook] = []
_after_fork_in_child: list[Hook] = []
_watched_children: set[tuple[int, Hook]] = set()
_watched_threads: set[int] = set()
_watched_work_horses: set[int] = set()
_forked_by_thread = False
_child_of_thread = False


def start_thread(name: str, work: Hook) -> threading.Thread | None:
    """Start a daemon thread called `ldinstrument.<name>`; return None where none can start: at the
    interpreter's exit (Python 3.12 and newer), or at the process's limit.
    """
    thread = threading.Thread(target=work, name=f"ldinstrument.{name}", daemon=True)
    try:
        thread.start()
    except RuntimeError as error:
        raise_if_interrupted(error)
        return None
    return thread


def on_exit(hook: Hook) -> None:
    """Call *hook* when the interpreter exits, the latest registered first; registering twice is
    once.
    """
    if hook not in _exit_hooks:
        _exit_hooks.append(hook)
        atexit.register(hook)


def may_end_without_exit() -> bool:
    """Tell whether a server that embeds Python may end it without the exit hooks.

    uWSGI ends a worker that is busy by `exit()` out of a signal handler. mod_wsgi ends a
    sub-interpreter, which it calls an application group, when no thread of ours runs any more.
    """
    group = getattr(sys.modules.get("mod_wsgi"), "application_group", "")
    return "uwsgi" in sys.modules or bool(group)


def on_exit_of_multiprocessing_child(hook: Hook, priority: int = 10) -> None:
    """Call *hook* at the end of this process if `multiprocessing` started it.

    Such a child leaves by `os._exit`, without `atexit`. Each hook once per process, those of a
    higher *priority* first.
    """
    processes = sys.modules.get("multiprocessing.process")
    if processes is None or processes.parent_process() is None:
        return
    if (os.getpid(), hook) in _watched_children:
        return
    from multiprocessing.util import Finalize

    _watched_children.add((os.getpid(), hook))
    Finalize(None, hook, exitpriority=priority)


def on_termination_of_multiprocessing_child(hook: Hook, seconds: float) -> None:
    """Call *hook* when SIGTERM is about to end this process, if `multiprocessing` started it.

    A server may end its workers so, Hypercorn does. Only where SIGTERM has its default effect,
    which it still has afterwards: the process ends by it. Call this on the main thread.

    Args:
        hook: runs on a thread of its own, because the signal may have interrupted a thread that
            holds a lock.
        seconds: how long it may take.
    """
    processes = sys.modules.get("multiprocessing.process")
    if processes is None or processes.parent_process() is None:
        return
    if threading.current_thread() is not threading.main_thread():
        return
    if signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        return

    def terminated(number: int, frame: object) -> None:
        # A parent that ends terminates its daemonic children once more: not in the middle of this.
        signal.signal(number, signal.SIG_IGN)
        working = threading.Thread(target=_run, args=([hook],), daemon=True)
        working.start()
        working.join(seconds)
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    signal.signal(signal.SIGTERM, terminated)


def on_exit_of_rq_work_horse(hook: Hook) -> None:
    """Call *hook* at the end of this process if it is a work horse of RQ.

    RQ runs each job in a child of its own, which calls `os._exit` as soon as the job is done. No
    other hook runs there, so that this one stands before `os._exit` itself, in that child only.
    Once per process.
    """
    pid = os.getpid()
    if pid in _watched_work_horses or not _is_rq_work_horse():
        return
    _watched_work_horses.add(pid)
    leave = os._exit

    def leaving(status: int) -> NoReturn:
        if os.getpid() == pid:  # no child of the job's own
            _run([hook])
        leave(status)

    os._exit = leaving


def _is_rq_work_horse() -> bool:
    if "rq.worker" not in sys.modules:
        return False
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    while frame is not None:
        if frame.f_code.co_name in ("fork_work_horse", "main_work_horse"):
            return True
        frame = frame.f_back
    return False


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
    global _begun_in
    _begun_in = os.getpid()
    _run(list(_after_fork_in_child))


_begun_in = os.getpid()
"""The process in which the hooks after its fork have run, or that imported this module."""


def _watch_uwsgi() -> None:
    """Run the hooks after a fork in uWSGI's workers, too.

    uWSGI forks in C, without Python's hooks; it calls one of its own in each worker. (The hooks
    before a fork do not run: what is open then, such as a store in SQLite, is better opened in the
    worker, with `--lazy-apps`.)
    """
    uwsgi = sys.modules.get("uwsgi")
    if uwsgi is None or getattr(uwsgi, "post_fork_hook", None) is _after_uwsgi_fork:
        return
    global _next_uwsgi_hook
    _next_uwsgi_hook = getattr(uwsgi, "post_fork_hook", None)
    uwsgi.post_fork_hook = _after_uwsgi_fork  # type: ignore[attr-defined]


_next_uwsgi_hook: Hook | None = None


def _after_uwsgi_fork() -> None:
    if _begun_in != os.getpid():
        _run_in_child()
    if _next_uwsgi_hook is not None:
        _next_uwsgi_hook()


on_fork(in_child=diagnostics.forked)  # first of all: the others may warn
on_fork(before=_note_forking_thread, in_child=_note_child_of_thread)
_watch_uwsgi()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_run_before_fork,
        after_in_parent=_run_in_parent,
        after_in_child=_run_in_child,
    )
