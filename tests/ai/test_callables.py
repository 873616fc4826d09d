"""Every kind of callable: what holds of `track_task` holds of `track_ai`, by the very same tests."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

from ldinstrument.tasks.tracked_functions import forget_functions

TESTS = Path(__file__).parent.parent
# What is about `track_task` alone: the module whose clock is exchanged, its name in a message, and
# processes that import the tests by their own name.
OWN = {
    "test_the_wait_before_the_first_await_is_not_counted",
    "test_lambdas_need_a_key",
    "test_process_pool",
    "test_runs_without_a_session_in_many_threads",  # counts the values of a task
}


def _tests_of(file: str) -> dict[str, Any]:
    """The tests and fixtures of a file about tasks, which is run with `track_ai` in it."""
    path = TESTS / f"{file}.py"
    if str(path.parent) not in sys.path:  # its conftest is not loaded when this folder runs alone
        sys.path.insert(0, str(path.parent))
    module = types.ModuleType(f"ldinstrument_tests_ai_{path.stem}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module
    source = path.read_text(encoding="utf-8")
    for name in ("ld.track_task", "ld.track_interaction"):
        source = source.replace(f"{name}_success", "ld.kept").replace(name, "ld.track_ai")
    source = source.replace("ld.kept", "ld.track_task_success")
    exec(compile(source, str(path), "exec"), vars(module))
    forget_functions()  # its keys are those of the file that it was made from
    found = {}
    for name, thing in vars(module).items():
        if name.startswith("test_") and name not in OWN:
            found[f"{name}_in_{path.stem.removeprefix('test_')}"] = thing
            if (mark := getattr(module, "pytestmark", None)) is not None:
                mark(thing)
        elif type(thing).__name__ == "FixtureFunctionDefinition":
            found[name] = thing
    return found


for _file in (
    "tasks/test_matrix",
    "callables/test_responses",
    "tasks/test_endings",
    "tasks/test_tracked_functions",
    "tasks/test_transparency",
    "tasks/test_concurrency",
):
    globals().update(_tests_of(_file))
