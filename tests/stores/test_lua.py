"""The scripts of `redis.lua`: one per verb, complete, and known by the digest that Redis makes."""

from __future__ import annotations

import hashlib
import inspect
import re

from ldinstrument.stores import redis
from ldinstrument.stores.lua import scripts


def test_each_verb_that_the_store_runs_has_a_script():
    """And there is none that nobody runs."""
    run = re.findall(r'self\._(?:run|each|all|only)\w*\(\s*"(\w+)"', inspect.getsource(redis))
    assert set(run)
    assert set(run) <= set(scripts())


def test_every_script_begins_with_the_common_part():
    """Then comes what it uses, then its own; a script holds no heading, so no other verb's text."""
    texts = {verb: script.text for verb, script in scripts().items()}
    common = texts["common"][: len(texts["common"]) // 2]
    assert texts.pop("common") == 2 * common
    for verb, text in texts.items():
        assert text.startswith(common), verb
        assert "-- @" not in text, verb
    kept = texts["keep_sealed"].removeprefix(common)
    assert {verb for verb, text in texts.items() if kept in text} == {
        "keep_sealed",
        "seal",
        "replace",
    }


def test_a_script_is_known_by_its_sha1():
    """As Redis itself computes it; read once."""
    for script in scripts().values():
        assert script.sha1 == hashlib.sha1(script.text.encode()).hexdigest()
    assert scripts() is scripts()
