"""Read `redis.lua`: one script per verb of a store, with the digest that Redis knows it by."""

from __future__ import annotations

import hashlib
import re
from functools import cache
from importlib.resources import files
from typing import NamedTuple

_HEADING = re.compile(r"^-- @(\w+)(?: uses (\w+))?$", re.MULTILINE)


class Script(NamedTuple):
    """A script and the name under which a server keeps it."""

    text: str
    sha1: str


@cache
def scripts() -> dict[str, Script]:
    """Return the scripts by verb: each section of the file with the common one before it."""
    _, *parts = _HEADING.split(files(__package__).joinpath("redis.lua").read_text("utf-8"))
    sections = dict(zip(parts[::3], parts[2::3], strict=True))
    uses = dict(zip(parts[::3], parts[1::3], strict=True))
    return {
        verb: _script(sections["common"] + sections.get(uses[verb] or "", "") + text)
        for verb, text in sections.items()
    }


def _script(text: str) -> Script:
    return Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())
