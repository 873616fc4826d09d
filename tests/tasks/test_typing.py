"""What type checkers say: the right calls of `tests/typing_cases` pass, each wrong one is an error
in its line.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CASES = ROOT / "tests" / "typing_cases" / "tasks.py"

WRONG = """
from __future__ import annotations
import ldinstrument as ld

@ld.track_task
def bare(a: int, *, b: str = "") -> int:
    return a

@ld.track_task("key")
def called(a: int) -> int:
    return a

@ld.track_interaction
async def bare_async(a: int) -> int:
    return a

@ld.track_interaction("key")
async def called_async(a: int) -> int:
    return a

@ld.session(context="u")
def in_session(a: int) -> int:
    return a

class Thing:
    @ld.track_task
    def method(self, a: int) -> int:
        return a

    @ld.track_task("key")
    async def async_method(self, a: int) -> int:
        return a

    @classmethod
    @ld.track_task("key")
    def made(cls, a: int) -> int:
        return a

async def calls() -> None:
    bare("x")  # wrong
    bare(1, b=2)  # wrong
    bare()  # wrong
    bare(1, c=3)  # wrong
    called("x")  # wrong
    await bare_async("x")  # wrong
    await called_async("x")  # wrong
    in_session("x")  # wrong
    Thing().method("x")  # wrong
    await Thing().async_method("x")  # wrong
    Thing.made("x")  # wrong
    text: str = bare(1)  # wrong
    other: str = await called_async(1)  # wrong
    ld.propagate(bare)("x")  # wrong
    ld.track_task(3)  # wrong
    ld.track_task("key", success=True)  # wrong
    ld.track_task("key", expected=3)  # wrong
    ld.track_task("key", colour="red")  # wrong
    bare(1, b="right")
    await called_async(1)
"""
EXPECTED = {
    number for number, line in enumerate(WRONG.splitlines(), start=1) if line.endswith("# wrong")
}


def _tool(name: str) -> str:
    found = shutil.which(
        name, path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    )
    if found is None:
        pytest.skip(f"{name} is not installed (make check installs it)")
    return found


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, timeout=110, check=False
    )


def _mypy(*files: str) -> subprocess.CompletedProcess[str]:
    return _run(
        _tool("mypy"),
        "--strict",
        "--no-error-summary",
        "--config-file",
        str(ROOT / "pyproject.toml"),
        *files,
    )


def _pyright(*files: str) -> list[dict[str, object]]:
    ran = _run(_tool("pyright"), "--pythonpath", sys.executable, "--outputjson", *files)
    if not ran.stdout.startswith("{"):
        pytest.skip(f"pyright does not run here: {ran.stderr[-200:]}")
    found = json.loads(ran.stdout)["generalDiagnostics"]
    return [problem for problem in found if problem["severity"] == "error"]


@pytest.fixture(name="wrong")
def _wrong(tmp_path: Path) -> Path:
    path = tmp_path / "wrong_calls.py"
    path.write_text(WRONG)
    return path


def test_mypy_sees_the_original_signatures() -> None:
    """`mypy --strict` finds nothing to complain of in the right calls."""
    ran = _mypy(str(CASES))
    assert (ran.returncode, ran.stdout) == (0, "")


def test_mypy_rejects_each_wrong_call(wrong: Path) -> None:
    """And exactly those."""
    ran = _mypy(str(wrong))
    lines = {int(found[1]) for found in re.finditer(r"wrong_calls\.py:(\d+): error:", ran.stdout)}
    assert lines == EXPECTED, ran.stdout


def test_pyright_sees_the_original_signatures() -> None:
    """pyright agrees with mypy."""
    assert _pyright(str(CASES)) == []


def test_pyright_rejects_each_wrong_call(wrong: Path) -> None:
    """And exactly those."""
    found = _pyright(str(wrong))
    lines = {problem["range"]["start"]["line"] + 1 for problem in found}  # type: ignore[index]
    assert lines == EXPECTED, found
