"""Standard output is the answer's, and may be gone, poor in letters or not there."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from shells import COMMAND, NOISY, SUM

from ldinstrument.devserver import LocalLaunchDarkly
from ldinstrument.rest import MetricsAPI


def test_nothing_but_the_answer_is_on_stdout(shell: Callable[..., Any], tmp_path: Path) -> None:
    """Imported code may write as it likes: prints, bare writes, children, threads, exit hooks."""
    (tmp_path / "noisy.py").write_text(NOISY)
    ran = shell("plan", "noisy.py", "--json")
    assert ran.returncode == 3, ran.stderr
    assert [change["key"] for change in json.loads(ran.stdout)["changes"]] == [
        "noisy.duration",
        "noisy.success_rate",
    ]
    for words in ("from print", "from a write", "from a child", "from an exit hook"):
        assert words in ran.stderr
    assert "from" not in shell("plan", "noisy.py").stdout


def test_threads_that_imported_code_leaves_running_are_not_waited_for(
    shell: Callable[..., Any], tmp_path: Path
) -> None:
    """A scheduler that starts on import would keep a deploy step for ever."""
    (tmp_path / "scheduler.py").write_text(
        "import threading\nimport ldinstrument as ld\n"
        "threading.Thread(target=threading.Event().wait).start()\n@ld.track_task('planned')\ndef "
        "f(): ..."
    )
    assert shell("plan", "scheduler.py").returncode == 3


def test_a_reader_that_has_gone_is_no_failure_of_ours(shell: Callable[..., Any]) -> None:
    """`| head -1` ends it as a shell expects, without a word."""
    for arguments in (("plan",), ("plan", "--json")):
        reading, writing = os.pipe()
        os.close(reading)
        try:
            ran = shell(*arguments, stdout=writing)
        finally:
            os.close(writing)
        assert ran.returncode == 141
        assert "pipe" not in ran.stderr.lower()


@pytest.mark.parametrize(
    "arguments", [("metrics", "list"), ("metrics", "list", "--json"), ("plan", "--json")]
)
def test_without_stdout_and_stdin(
    shell: Callable[..., Any], api: MetricsAPI, arguments: tuple[str, ...]
) -> None:
    """As some daemons start their children."""
    api.create(SUM)
    command = shlex.join([*COMMAND, *arguments])
    ran = subprocess.run(
        f"{command} <&- >&-",
        shell=True,
        stderr=subprocess.PIPE,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "LDINSTRUMENT_URL": api.host.url},
    )
    assert ran.returncode == (3 if "plan" in arguments else 0), ran.stderr
    refused = subprocess.run(
        f"{shlex.join([*COMMAND, 'metrics', 'delete', 'cart.value'])} <&-",
        shell=True,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "LDINSTRUMENT_URL": api.host.url},
    )
    assert (refused.returncode, "--yes" in refused.stderr) == (2, True)


def test_output_is_escaped_where_the_encoding_is_poor(
    shell: Callable[..., Any], ld: LocalLaunchDarkly
) -> None:
    """ASCII, and a name with half a character in it: tables escape, JSON stays JSON."""
    found = {
        "items": [{"key": "cart.value", "name": "Wärenkorb \U0001f6d2 \ud800"}],
        "totalCount": 1,
    }
    ld.fault("/api/v2/metrics/default", status=200, times=None, body=json.dumps(found))
    for encoding in ("ascii", "utf-8"):
        env = {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
        listed = shell("metrics", "list", env=env)
        assert (listed.returncode, "renkorb" in listed.stdout) == (0, True), listed.stderr
        (metric,) = json.loads(shell("metrics", "list", "--json", env=env).stdout)
        assert metric["name"].startswith("Wärenkorb")


def test_a_program_that_goes_on_has_its_stdout_back() -> None:
    """Prints, bare writes and children's alike; what came in between went to stderr."""
    program = (
        "import os, sys\n"
        "from ldinstrument.cli import stdio\n"
        "stdio.keep_for_answers()\n"
        "print('kept out', flush=True)\n"
        "print('answer', file=stdio.answers())\n"
        "stdio.give_back()\n"
        "stdio.give_back()\n"
        "print('printed', flush=True)\n"
        "os.write(1, b'written')\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (ran.stdout.split(), ran.stderr.split()) == (
        ["answer", "printed", "written"],
        ["kept", "out"],
    )
