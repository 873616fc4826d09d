"""Writes to the spool: in order, without a lock, and never the host's problem."""

from __future__ import annotations

import sqlite3

from ldinstrument.delivery.spool import Spool
from ldinstrument.delivery.spool_writes import SpoolWrites


def test_writes_are_done_in_order_by_run(tmp_path):
    """Nothing touches the disk before; afterwards the next processor finds it all."""
    queue, written = SpoolWrites(tmp_path / "spool", "origin"), []
    for number in range(3):
        queue.add(lambda spool, number=number: written.append((number, type(spool))))
    assert written == []
    assert not (tmp_path / "spool").exists()
    queue.run()
    assert written == [(0, Spool), (1, Spool), (2, Spool)]


def test_a_disk_that_refuses_is_logged_once(tmp_path, caplog):
    """Other writes go on; the line names the folder and what to do."""
    queue, written = SpoolWrites(tmp_path, "origin"), []

    def full(spool: Spool) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    for write in (full, full, written.append):
        queue.add(write)
    queue.run()
    assert len(written) == 1
    (line,) = caplog.messages
    assert str(tmp_path) in line
    assert "disk is full" in line
    assert "make room" in line


def test_nothing_is_written_to_a_spool_that_has_ended(tmp_path, caplog):
    """What was queued before its end is written; what a late answer brings is not."""
    queue, written = SpoolWrites(tmp_path, "origin"), []
    queue.add(lambda spool: written.append("before"))
    queue.add(Spool.end)
    queue.add(lambda spool: written.append("after"))
    queue.run()
    assert (written, caplog.messages) == (["before"], [])
