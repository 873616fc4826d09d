"""`ids`: random ids of the documented form, and other ones in a forked child."""

from __future__ import annotations

import os

import pytest

from ldinstrument.sessions.ids import random_id


def test_an_id_is_32_hexadecimal_digits() -> None:
    """Small numbers are filled up, too."""
    ids = [random_id() for _ in range(1000)]

    assert {len(made) for made in ids} == {32}
    assert all(int(made, 16) >= 0 for made in ids)
    assert len(set(ids)) == 1000


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform does not fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_does_not_repeat_its_parents_ids() -> None:
    """Both go on from the same state of the generator otherwise: payloads would get lost as
    repeated ones.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, random_id().encode())
        os._exit(0)
    os.waitpid(child, 0)
    theirs = os.read(reading, 100).decode()
    os.close(reading)
    os.close(writing)

    assert len(theirs) == 32
    assert random_id() != theirs
