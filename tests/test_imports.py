"""`imports`: a fork waits for imports of ours on other threads; public names load at first use."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import threading
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any

import pytest

from ldinstrument.imports import imported_by_others

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform does not fork")

PROGRAM = """
import os, signal, sys, threading, time
import ldinstrument as ld

class Sink:
    def track(self, *arguments, **more): pass

begun = threading.Event()
class Slow:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            begun.set()
            time.sleep(0.3)
sys.meta_path.insert(0, Slow())

def use():
    with ld.session("u", client=Sink()) as visit:
        visit.conversion(1.0)

threading.Thread(target=use).start()
assert begun.wait(60)
child = os.fork()
if child == 0:
    signal.alarm(60)
    use()
    os._exit(0)
sys.exit(os.waitpid(child, 0)[1] != 0)
"""


@pytest.mark.parametrize("module", ["ldinstrument.sessions.session", "ldclient"])
def test_a_fork_in_the_middle_of_a_first_use(module: str) -> None:
    """The child can use the library: it waits for no lock of a thread that it has not."""
    root = str(Path(__file__).parent.parent)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM.format(module=module)],
        env={**os.environ, "PYTHONPATH": root},
        timeout=200,
    )
    assert done.returncode == 0


def test_imports_of_this_thread_and_of_others_are_told_apart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Only another thread's is waited for: a program may fork while it is imported."""
    found: dict[str, list[str]] = {}

    class Finder(MetaPathFinder):
        def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
            if name == "ldinstrument.no_such_module":
                found["own"] = imported_by_others()
                other = threading.Thread(target=self.look)
                other.start()
                other.join()

        def look(self) -> None:
            found["other"] = imported_by_others()

    monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("ldinstrument.no_such_module")
    assert found == {"own": [], "other": ["ldinstrument.no_such_module"]}


def test_a_public_name_loads_at_first_use_and_a_wrong_one_is_named() -> None:
    """Afterwards the package has it; what nobody exports is the AttributeError of any module."""
    program = """
import sys
from ldinstrument import delivery
assert "ldinstrument.delivery.flush_report" not in sys.modules
report = delivery.FlushReport
assert "ldinstrument.delivery.flush_report" in sys.modules and vars(delivery)["FlushReport"] is report
try:
    delivery.FlushReprot
except AttributeError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.stdout == "module 'ldinstrument.delivery' has no attribute 'FlushReprot'\n"
