"""The smaller tables of the page."""

from __future__ import annotations

from ldinstrument.devserver.page.page_tables import (
    SPARK_STEPS,
    UnitView,
    activity,
    exposed_units,
    health_words,
)

from ..recorded_events import Server, event, exposure

QUIET = {"events": 3, "posts": 2, "duplicates": 0, "refused": 0, "faults": 0}


def test_contexts_are_found_by_a_part_of_their_key_the_newest_exposure_first():
    """Wildcards of SQL are plain text."""
    server = Server()
    server.post(exposure("Ana", 0, 5), exposure("Ben", 1, 9), exposure("100%_", 1, 2))
    server.reader.read()
    found = exposed_units(server.database, "")
    assert [unit.key for unit in found] == ["Ben", "Ana", "100%_"]
    assert found[0] == UnitView("user", "Ben", (("f", "v1", 9),))
    assert [unit.key for unit in exposed_units(server.database, "aN")] == ["Ana"]
    assert [unit.key for unit in exposed_units(server.database, "%")] == ["100%_"]
    server.database.close()


def test_activity_counts_the_custom_events_of_each_key():
    """In steps of time; exposures are none."""
    server = Server()
    assert activity(server.database) == {}
    server.post(event("a"), event("a"), event("a", key="other"), exposure("a"))
    server.post(event("a"))
    counts = activity(server.database)
    assert {key: (len(steps), sum(steps)) for key, steps in counts.items()} == {
        "latency": (SPARK_STEPS, 3),
        "other": (SPARK_STEPS, 1),
    }
    server.database.close()


def test_health_is_one_line_that_names_only_what_there_is():
    """Zeros are not worth a word."""
    assert health_words(QUIET, 0, 0) == "3 events, 2 POSTs"
    totals = {**QUIET, "events": 1_000, "duplicates": 1, "refused": 2, "faults": 3}
    words = health_words(totals, 4, 5)
    assert words == (
        "1,000 events, 2 POSTs, 1 sent twice and counted once, 2 refused, 3 spoilt on purpose, "
        "4 findings, still counting what has arrived"
    )
