"""Rows are kept packed and written in pieces, with a number for each unit, series and flag."""

from __future__ import annotations

import pytest

from ldinstrument.devserver.events.measurement_log import MeasurementLog
from ldinstrument.devserver.events.post_rows import RowsBuilder

from ..recorded_events import Server


@pytest.fixture(name="server")
def _server():
    server = Server()
    yield server
    server.database.close()


def keep(log: MeasurementLog, *measurements: tuple, exposures: tuple = ()) -> None:
    builder = RowsBuilder()
    for series, unit, created, value in measurements:
        builder.measure(series, ("user", unit), created, value, 1)
    for flag, unit, variation, created in exposures:
        builder.expose(flag, ("user", unit), variation, created)
    with log.database.changing() as connection:
        log.keep(connection, builder.rows)


def written(server: Server) -> list[tuple]:
    return server.database.rows(
        "SELECT n.name, u.key, m.created, m.value FROM measurements m "
        "JOIN names n ON n.id = m.series JOIN units u ON u.id = m.unit ORDER BY m.id"
    )


def test_pieces_come_to_the_rows_that_were_kept_in_their_order(server):
    """Whatever the size of a piece."""
    rows = [("=a", f"u{i % 3}", i, float(i)) for i in range(10)]
    log = server.event_log.log
    keep(log, *rows[:6], exposures=(("f", "u0", 1, 5), ("f", "u9", 0, 6)))
    keep(log, *rows[6:])
    assert log.packed() == 2
    pieces = 0
    while log.unpack(4) is not None:
        pieces += 1
    assert (pieces, log.packed()) == (3, 0)
    assert written(server) == rows
    exposed = server.database.rows(
        "SELECT u.key, e.variation, e.created FROM exposure_log e JOIN units u ON u.id = e.unit"
    )
    assert exposed == [("u0", 1, 5), ("u9", 0, 6)]


def test_a_post_that_gets_the_number_of_an_earlier_one_is_read_itself(server):
    """SQLite gives the number of a deleted row again."""
    log = server.event_log.log
    for unit in ("a", "b", "c"):
        keep(log, ("=k", unit, 1, None))
        assert log.unpack(10) is not None
    assert [unit for _, unit, _, _ in written(server)] == ["a", "b", "c"]


def test_units_that_were_forgotten_keep_their_numbers(server, monkeypatch):
    """What is known in memory is bounded; the database knows the rest."""
    monkeypatch.setattr("ldinstrument.devserver.events.measurement_log.KNOWN_UNITS", 2)
    log = server.event_log.log
    for unit in ("a", "b", "c", "d", "a", "b"):
        keep(log, ("=k", unit, 1, None), ("=k", "a", 1, None))
        log.unpack(10)
    assert len(server.database.rows("SELECT * FROM units")) == 4
    assert [unit for _, unit, _, _ in written(server)][::2] == ["a", "b", "c", "d", "a", "b"]


def test_a_post_without_units_is_not_kept(server):
    """There is nothing to aggregate in it."""
    keep(server.event_log.log)
    assert server.event_log.log.packed() == 0
    assert server.event_log.log.unpack(10) is None
