"""Every fault of `faults.py`, with short waits; `python benchmarks/faults.py` runs the same with
long ones.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
import faults  # noqa: E402 - a plain module beside this one


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")


@pytest.mark.parametrize("fault", faults.FAULTS, ids=lambda fault: fault.__name__)
def test_what_is_not_dropped_by_an_announced_bound_arrives_once(fault, capsys):
    """Sent = arrived + dropped by reason; no duplicates; each payload id always with the same
    bytes.
    """
    if fault is faults.forks and not hasattr(os, "fork"):
        pytest.skip("this platform does not fork")
    row = fault()
    with capsys.disabled():
        print(f"\n  {row}", end="")
    assert row.adds_up, str(row)
