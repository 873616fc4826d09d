"""The command line in a process of its own, and a package for it to read."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ldinstrument.cli import main
from ldinstrument.devserver import LocalLaunchDarkly

sys.path.insert(0, str(Path(__file__).parent))
from shells import APP, COMMAND, ROOT, Ran


@pytest.fixture(name="run")
def _run(
    ld: LocalLaunchDarkly, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Ran]:
    """Run the command line in this process, 80 columns wide, without a terminal."""
    monkeypatch.setenv("LDINSTRUMENT_URL", ld.url)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("COLUMNS", raising=False)

    def run(*arguments: str) -> Ran:
        capsys.readouterr()
        code = main(arguments)
        captured = capsys.readouterr()
        return Ran(code, captured.out, captured.err)

    return run


@pytest.fixture(name="app")
def _app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A program, and the name of its file."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    (tmp_path / "program_cli.py").write_text(textwrap.dedent(APP))
    yield "program_cli.py"
    for name in set(sys.modules) - before:
        if name.startswith("program"):
            del sys.modules[name]


@pytest.fixture(name="shell")
def _shell(
    ld: LocalLaunchDarkly, tmp_path: Path
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the command line in a process of its own, without a terminal."""

    def shell(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        extra = {"LDINSTRUMENT_URL": ld.url, "PYTHONPATH": str(ROOT), **options.pop("env", {})}
        return subprocess.run(
            [*COMMAND, *arguments],
            cwd=tmp_path,
            env={**os.environ, **extra},
            timeout=120,
            text=True,
            **{
                "stdin": subprocess.DEVNULL,
                "stdout": subprocess.PIPE,
                "stderr": subprocess.PIPE,
                **options,
            },
        )

    return shell
