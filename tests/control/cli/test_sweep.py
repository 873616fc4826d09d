"""`ldinstrument sweep`."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from shells import Ran

from ldinstrument.devserver import LocalLaunchDarkly


def test_sweep(
    run: Callable[..., Ran], ld: LocalLaunchDarkly, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sessions that nobody ended, in a file; swept once, delivered once, to a limit in whole
    batches; a store that cannot be opened is an error.
    """
    monkeypatch.setenv("LAUNCHDARKLY_SDK_KEY", "sdk-sweep")
    address = f"sqlite:///{tmp_path}/sessions.db"
    program = (
        "import sys, time, ldinstrument as ld; from ldinstrument.stores import open_store\n"
        "store = open_store(sys.argv[1], idle=0.2, sweep=False)\n"
        # What falls silent in the same five seconds is one batch.
        "while not 1 < (time.time() + 0.2) % 5 < 3: time.sleep(0.01)\n"
        "for n in (1, 2):\n"
        "    with ld.session(f'u-{n}', id=f's-{n}', store=store) as s: s.interaction()\n"
        "store.close()\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program, address], capture_output=True, text=True, timeout=110
    )
    assert ran.returncode == 0, ran.stderr
    time.sleep(0.5)
    first = run("sweep", address, "--idle", "0.2", "--limit", "1", "--json")
    assert (first.code, first.json["sessions"]) == (3, 2), first.err
    swept = run("sweep", address, "--idle", "0.2", "--json")
    assert (swept.code, swept.json["sessions"]) == (0, 0), swept.err
    ld.wait_for(lambda: len(ld.custom_events("session.interactions")) >= 2)
    assert run("sweep", address, "--idle", "0.2").out.startswith("0 sessions")
    assert len(ld.custom_events("session.interactions")) == 2
    assert "error: ftp: is no session store" in run("sweep", "ftp://example.org").err
    assert "no store at" not in swept.err
    mistyped = run("sweep", f"sqlite:///{tmp_path}/sesions.db")
    assert (mistyped.code, "no store at" in mistyped.err) == (0, True)
