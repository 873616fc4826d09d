"""Tracked functions of a script travel by value, as joblib, Ray and Spark send them."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import ldinstrument as ld
from ldinstrument.callables.compiler import closed_over
from ldinstrument.callables.streams import plain_types
from ldinstrument.sessions.clock import clock

SCRIPT = """
import base64, functools, importlib, json, sys
import ldinstrument as ld

@ld.track_task("work", success=lambda r: r > 0, data=lambda r: {"r": r}, within=9)
def work(x): return x + 1

@ld.track_interaction("talk")
async def talk(x): return x + 1

@ld.track_task("items")
def items(n): yield from range(n)

@ld.session(context="u-1")
@ld.track_task("inner")
def visit(x): return x

class Model:
    @ld.track_task("predict")
    def predict(self, x): return x * 2
    @classmethod
    @ld.track_task("make")
    def make(cls): return cls()

def scaled_by(k):
    @ld.track_task("scaled")
    def scaled(x): return x * k
    return scaled

@ld.track_ai("ask", model="m")
def ask(x): return x

@ld.track_ai("ask.later")
async def ask_later(x): return x

@ld.track_ai("ask.items")
def ask_items(n): yield from range(n)

work(1)  # without a session: what is counted here is not counted there
THINGS = [work, talk, items, visit, Model, scaled_by(3), ask, ask_later, ask_items]
if __name__ == "__main__":
    lib = importlib.import_module(sys.argv[1])
    for thing in THINGS:
        print(base64.b64encode(lib.dumps(thing, **json.loads(sys.argv[2]))).decode())
"""
OTHER = """
import asyncio, base64, importlib, sys
import ldinstrument as ld
from ldinstrument.testing import recording

lib = importlib.import_module(sys.argv[1])
work, talk, items, visit, model, scaled, ask, ask_later, ask_items = [
    lib.loads(base64.b64decode(line)) for line in sys.stdin
]
with recording() as events, ld.session("u-2") as s:
    got = work(1), asyncio.run(talk(1)), list(items(2)), visit(4), model().predict(5), scaled(2)
    assert type(model.make()) is model
    assert (ask(7), asyncio.run(ask_later(8)), list(ask_items(2))) == (7, 8, [0, 1])
    tasks = {key: task.successes for key, task in s.summary().tasks.items()}
work(1)
print(got)
print(sorted(tasks))
print(events.only("work.success_rate").data, events.only("inner.duration").context.key)
print("talk.unfinished" in ld.catalog, dict(ld.stats().without_session))
"""


@pytest.mark.parametrize(
    ("library", "options"), [("cloudpickle", "{}"), ("dill", "{}"), ("dill", '{"recurse": true}')]
)
def test_functions_of_a_script_run_in_another_process(
    library: str, options: str, tmp_path: Path
) -> None:
    """They measure there as here, with their metrics in the catalog of that process."""
    pytest.importorskip(library)
    script, other = tmp_path / "script.py", tmp_path / "other.py"
    script.write_text(SCRIPT)
    other.write_text(OTHER)
    sent = _python(script, library, options).stdout
    said = _python(other, library, given=sent).stdout.splitlines()
    assert said[0] == "(2, 2, [0, 1], 4, 10, 6)"
    assert said[1] == str(
        sorted(
            ["work", "talk", "items", "predict", "make", "scaled", "ask", "ask.later", "ask.items"]
        )
    )
    assert said[2] == "{'r': 2} u-1"
    assert said[3] == "True {'work': 1}"


def test_joblib_runs_them(tmp_path: Path) -> None:
    """Its loky workers import nothing of the script."""
    pytest.importorskip("joblib")
    script = tmp_path / "script.py"
    script.write_text(
        "from joblib import Parallel, delayed\n"
        "import ldinstrument as ld\n"
        "@ld.track_task('work')\n"
        "def work(x): return x + 1\n"
        "if __name__ == '__main__':\n"
        "    print(Parallel(n_jobs=2)(delayed(work)(n) for n in range(3)))\n"
    )
    assert _python(script).stdout.strip() == "[1, 2, 3]"


def _python(script: Path, *args: str, given: str = "") -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, str(script), *args],
        input=given,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done


def test_the_clock_pickles_by_name() -> None:
    """The very object comes back, in any process."""
    assert pickle.loads(pickle.dumps(clock)) is clock


def test_a_wrapper_by_value_counts_with_the_others() -> None:
    """What is counted without a session is one count per task, however often it was unpickled."""
    cloudpickle: Any = pytest.importorskip("cloudpickle")

    def work() -> None: ...

    tracked = ld.track_task("by.value")(work)
    copies = [cloudpickle.loads(cloudpickle.dumps(tracked)) for _ in range(3)]
    for function in (tracked, *copies):
        function()
    assert dict(ld.stats().without_session) == {"by.value": 4}
    for function in copies:
        assert closed_over(function, "_rare").plain_types is plain_types
