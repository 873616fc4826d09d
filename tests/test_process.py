"""What runs before the process exits, and around a fork."""

from __future__ import annotations

import subprocess
import sys


def run(program: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    return done.stdout.split()


def test_hooks_around_a_fork_run_in_order() -> None:
    """Before it the latest first, after it the earliest first; each once."""
    program = """
import os
from ldinstrument.process import on_fork
def say(word): return lambda: os.write(1, word.encode() + b"\\n")
a = say("before-a")
on_fork(before=a, in_parent=say("parent-a"), in_child=say("child-a"))
on_fork(before=a)
on_fork(before=say("before-b"), in_child=say("child-b"))
child = os.fork()
if not child: os._exit(0)
os.waitpid(child, 0)
"""
    said = run(program)

    assert said[:2] == ["before-b", "before-a"]
    assert sorted(said[2:]) == ["child-a", "child-b", "parent-a"]
    assert said.index("child-a") < said.index("child-b")


def test_a_hook_that_fails_stops_no_other() -> None:
    """The child begins afresh whatever one room's hook did."""
    program = """
import logging, os
logging.disable(logging.CRITICAL)
from ldinstrument.process import on_fork
def fail(): raise RuntimeError("broken")
on_fork(in_child=fail)
on_fork(in_child=lambda: print("after", flush=True))
child = os.fork()
if not child: os._exit(0)
os.waitpid(child, 0)
"""
    assert run(program) == ["after"]


def test_hooks_at_exit_run_once_the_latest_first() -> None:
    """Also when registered twice."""
    program = """
from ldinstrument.process import on_exit
def first(): print("first")
def second(): print("second")
on_exit(first); on_exit(second); on_exit(first)
"""
    assert run(program) == ["second", "first"]


def test_a_multiprocessing_child_runs_its_hook() -> None:
    """It leaves by `os._exit`, without `atexit`."""
    program = """
import multiprocessing
from ldinstrument.process import on_exit_of_multiprocessing_child
def leave(): print("left", flush=True)
def work():
    on_exit_of_multiprocessing_child(leave)
    on_exit_of_multiprocessing_child(leave)
if __name__ == "__main__":
    on_exit_of_multiprocessing_child(leave)
    child = multiprocessing.get_context("fork").Process(target=work)
    child.start()
    child.join()
"""
    assert run(program) == ["left"]


def test_a_child_forked_from_a_thread_runs_the_exit_hooks() -> None:
    """When that thread ends: nothing else would end what the hooks end."""
    program = """
import os, threading
from ldinstrument.process import on_exit, watch_forking_thread
on_exit(lambda: os.write(1, b"hook-%d\\n" % (os.getpid() != parent)))
parent = os.getpid()
def fork():
    child = os.fork()
    if child:
        print("status", os.waitpid(child, 0)[1], flush=True)
    else:
        watch_forking_thread()
        watch_forking_thread()
thread = threading.Thread(target=fork)
thread.start(); thread.join()
"""
    assert run(program) == ["hook-1", "status", "0", "hook-0"]


def test_a_work_horse_of_rq_delivers_before_it_leaves() -> None:
    """The hook stands before `os._exit` in that child only: not in its parent, nor in a child of
    the job's own.
    """
    program = """
import os, sys, types
from ldinstrument.process import on_exit_of_rq_work_horse
sys.modules["rq.worker"] = types.ModuleType("rq.worker")
before = os._exit
def hook(): os.write(1, b"delivered\\n")
on_exit_of_rq_work_horse(hook)
assert os._exit is before
def main_work_horse():
    on_exit_of_rq_work_horse(hook)
    on_exit_of_rq_work_horse(hook)
    if not (own := os.fork()): os._exit(0)
    os.waitpid(own, 0)
    os._exit(7)
child = os.fork()
if not child: main_work_horse()
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert run(program) == ["delivered", "7"]


def test_hooks_after_a_fork_run_in_a_worker_of_uwsgi() -> None:
    """It forks in C and calls a hook of its own, once per worker, and whatever was there before."""
    program = """
import ctypes, os, sys, types
uwsgi = sys.modules["uwsgi"] = types.ModuleType("uwsgi")
uwsgi.post_fork_hook = lambda: os.write(1, b"theirs\\n")
from ldinstrument.process import on_fork
on_fork(in_child=lambda: os.write(1, b"ours\\n"))
child = ctypes.CDLL(None).fork()
if not child:
    uwsgi.post_fork_hook()
    os._exit(0)
os.waitpid(child, 0)
child = os.fork()
if not child:
    uwsgi.post_fork_hook()  # as with --py-call-osafterfork
    os._exit(0)
os.waitpid(child, 0)
"""
    assert run(program) == ["ours", "theirs", "ours", "theirs"]


def test_a_terminated_child_of_multiprocessing_runs_its_hook_first() -> None:
    """And ends by the signal all the same, also when the hook waits for a lock of the main thread,
    and after the hook when it is terminated twice, as by a parent that ends; a handler of the
    host's stays.
    """
    program = """
import multiprocessing, os, signal, sys, threading, time
from ldinstrument.process import on_termination_of_multiprocessing_child as on_termination
def say(word): os.write(1, word.encode() + b"\\n")
def work(how):
    lock = threading.Lock()
    if how == "handled":
        signal.signal(signal.SIGTERM, lambda *_: (say("theirs"), os._exit(5)))
    def hook():
        say("ours")
        if how == "locked": lock.acquire()
        if how == "twice": os.kill(os.getpid(), signal.SIGTERM); time.sleep(0.2); say("done")
    on_termination(hook, 0.2 if how == "locked" else 9)
    with lock:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(20)
if __name__ == "__main__":
    before = signal.getsignal(signal.SIGTERM)
    on_termination(lambda: None, 1.0)
    assert signal.getsignal(signal.SIGTERM) is before
    for how in ("plain", "locked", "twice", "handled"):
        child = multiprocessing.get_context("fork").Process(target=work, args=(how,))
        child.start(); child.join(10)
        say(str(child.exitcode))
"""
    assert run(program) == [
        *("ours", "-15", "ours", "-15"),
        *("ours", "done", "-15", "theirs", "5"),
    ]
