"""Workers are killed at random, stores and LaunchDarkly fail: none missing, none twice. See
`killing`.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="module", name="killing")
def _killing():
    spec = importlib.util.spec_from_file_location("killing", Path(__file__).with_name("killing.py"))
    assert spec is not None
    assert spec.loader is not None
    sys.modules["killing"] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("store", ["sqlite", "redis"])
def test_kill_minus_nine(killing, store, request, capsys):
    """What LaunchDarkly holds is what the clients did, whoever was killed in between."""
    if store == "redis":
        request.getfixturevalue("servers")

    verdict = killing.run(store, seconds=3.0, seed=7)

    print(killing.table([verdict]))
    assert verdict.wrong() == {}
    assert verdict.kills >= 2
    assert verdict.sessions > 20
    assert verdict.posts >= verdict.payloads
