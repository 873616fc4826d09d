"""The commands together: exit codes, help, errors."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from shells import ROOT, Ran

from ldinstrument.rest import MetricsAPI


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["plan", "no_such_package"], "cannot be imported"),
        (["plan", "nothing.py"], "does not exist"),
        (["plan", "os:path"], "no Catalog"),
        (["plan", "--host", "http://example.org"], "https"),
        (["plan", "--host", "http://127.0.0.1:9"], "no LaunchDarkly API token"),
        (["metrics", "get", "no.such"], "Invalid resource identifier|Not Found|not found"),
        (["metrics", "rename", "no.such", "x"], "404"),
        (["metrics", "create", "Bad Key", "--measure", "count"], "letters, digits"),
        (["metrics", "update", "a.b", "key=c"], "never changes"),
    ],
)
def test_errors_are_one_line_and_1(
    run: Callable[..., Ran], arguments: list[str], words: str
) -> None:
    """No traceback, a clear word."""
    ran = run(*arguments)
    assert ran.code == 1
    assert re.search(words, ran.err)
    errors = [line for line in ran.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "Traceback" not in ran.err


CREATE = ["metrics", "create", "a.b"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["plan", "--nope"], "--nope"),
        (["metrics", "get"], "key"),
        (["metrics", "update", "a.b", "nonsense"], "FIELD=VALUE"),
        (["nope"], "nope"),
        (["metrics", "list", "-n", "0"], "limit"),
        (["metrics", "list", "--kind", "trace"], "kind"),
        (["metrics", "list", "--sort", "size"], "createdAt"),
        (["metrics", "list", "--used-in", "flags"], "guarded_rollouts"),
        ([*CREATE, "--kind", "trace"], "pageview"),
        ([*CREATE, "--measure", "sum"], "occurrence"),
        (CREATE, "--unit and --lower-is-better"),
        ([*CREATE, "--unit", "ms"], "--lower-is-better or"),
        ([*CREATE, "--kind", "pageview"], "--url"),
        ([*CREATE, "--kind", "pageview", "--url", "/pricing"], "KIND:TEXT"),
        (
            [*CREATE, "--kind", "pageview", "--url", "exact:/x", "--unit", "ms"],
            "only for --kind custom",
        ),
        (
            [*CREATE, "--kind", "pageview", "--url", "exact:/x", "--selector", "a"],
            "only for --kind click",
        ),
        ([*CREATE, "--kind", "click", "--url", "exact:/x"], "--selector"),
        ([*CREATE, "--measure", "count", "--url", "exact:/x"], "only for --kind pageview"),
    ],
)
def test_wrong_usage_is_2(
    run: Callable[..., Ran],
    api: MetricsAPI,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    words: str,
) -> None:
    """As everywhere; an option that would be left out without a word is refused."""
    monkeypatch.setenv("COLUMNS", "300")
    ran = run(*arguments)
    assert (ran.code, api.count()) == (2, 0)
    assert words in ran.err


def test_version(run: Callable[..., Ran]) -> None:
    """What one is asked for in every issue."""
    assert run("--version").out == f"ldinstrument {metadata.version('ldinstrument')}\n"


@pytest.mark.parametrize("missing", ["typer", "rich"])
def test_without_typer_or_rich_it_says_what_to_install(missing: str) -> None:
    """The command to type, no traceback."""
    program = (
        f"import sys; sys.modules[{missing!r}] = None; "
        "from ldinstrument.cli import main; sys.exit(main(['plan']))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, timeout=110
    )
    assert ran.returncode == 1
    assert "pip install 'ldinstrument[cli]'" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_every_command_has_help_and_is_in_the_docs(run: Callable[..., Ran]) -> None:
    """docs/cli.md names every command and every option."""
    import typer.main

    from ldinstrument.cli.app import app

    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    root: Any = typer.main.get_command(app)
    commands = {name: command for name, command in root.commands.items() if name != "metrics"}
    commands |= {
        f"metrics {name}": command for name, command in root.commands["metrics"].commands.items()
    }
    assert len(commands) >= 13
    for name, command in commands.items():
        assert f"ldinstrument {name}" in page, name
        helped = run(*name.split(), "--help")
        assert (helped.code, bool(command.help)) == (0, True)
        for parameter in command.params:
            longest = max(parameter.opts, key=len)
            if longest.startswith("--") and longest != "--help":
                assert parameter.help, f"{name} {longest}"
                assert longest in page, f"{name} {longest}"


def test_the_console_script_is_installed() -> None:
    """`ldinstrument --help` as a user types it."""
    script = Path(sys.executable).with_name("ldinstrument")
    ran = subprocess.run([str(script), "--help"], capture_output=True, text=True, timeout=110)
    assert (ran.returncode, "doctor" in ran.stdout) == (0, True)
