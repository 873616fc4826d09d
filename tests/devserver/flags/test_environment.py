"""Flags and segments of the one environment: versions grow with whatever happens to them."""

from __future__ import annotations

import pytest

from ldinstrument.devserver.database import Database
from ldinstrument.devserver.flags.environment import Flags, availability, delivered


@pytest.fixture(name="flags")
def _flags():
    database = Database()
    yield Flags(database)
    database.close()


def flag(**fields) -> dict:
    return {"key": "f", "on": True, "variations": [1, 2], **fields}


def test_a_version_grows_with_each_change(flags):
    """Beyond the one that SDKs know, whatever is given; a greater one is taken."""
    assert flags.set(flag())["version"] == 1
    assert flags.set(flag())["version"] == 2
    assert flags.set(flag(version=1))["version"] == 3
    assert flags.set(flag(version=9))["version"] == 9
    assert flags.delete("f") == 10
    assert flags.set(flag())["version"] == 11


def test_the_environment_has_a_version_that_only_grows(flags):
    """With flags and segments that come, change and go."""
    versions = [flags.version()]
    for change in (
        lambda: flags.set(flag()),
        lambda: flags.set({"key": "s"}, "segment"),
        lambda: flags.set(flag(on=False)),
        lambda: flags.delete("s", "segment"),
        lambda: flags.delete("f"),
    ):
        change()
        versions.append(flags.version())
    assert versions == sorted(set(versions))


def test_a_deleted_document_is_gone_once(flags):
    """Deleting what is not there says so."""
    flags.set(flag())
    flags.set({"key": "s"}, "segment")
    assert (list(flags.all()), list(flags.segments())) == (["f"], ["s"])
    assert flags.delete("f") == 2
    assert flags.delete("f") is flags.delete("nobodys") is None
    assert (list(flags.all()), list(flags.segments())) == ([], ["s"])


def test_what_a_start_brings_keeps_the_version_that_it_had(flags):
    """Only what is new or different is put."""
    flags.add_missing([flag(), flag(key="g")])
    flags.add_missing([flag(version=7), flag(key="g", on=False)])
    found = flags.all()
    assert (found["f"]["version"], found["g"]["version"], found["g"]["on"]) == (1, 2, False)
    assert flags.same(flag(version=9))
    assert not flags.same(flag(on=False))
    assert not flags.same(flag(key="nobodys"))


def test_a_database_has_one_payload_id(flags):
    """Another database has another one: its clients get everything anew."""
    assert Flags(flags.database).payload_id == flags.payload_id
    other = Database()
    assert Flags(other).payload_id != flags.payload_id
    other.close()


def test_sdks_get_a_flag_without_what_is_ours(flags):
    """The experiment's goals and control stay here."""
    ours = flag(experimentMetrics=["m"], experimentControl=1)
    assert flags.set(ours) == {**flag(), "version": 1, "clientSide": False}
    assert flags.all()["f"] == delivered(ours | {"version": 1})
    assert flags.database.document("flag", "", "f")["experimentMetrics"] == ["m"]


@pytest.mark.parametrize(
    ("fields", "browser", "mobile"),
    [
        ({}, False, True),
        ({"clientSide": True}, True, True),
        ({"clientSideAvailability": {"usingEnvironmentId": True}}, True, False),
        ({"clientSideAvailability": {}, "clientSide": True}, False, False),
        ({"clientSideAvailability": "x"}, False, True),
    ],
)
def test_browsers_get_only_what_says_so(fields, browser, mobile):
    """By the newer field where it is there, else by the older one."""
    assert availability(flag(**fields)) == {"usingEnvironmentId": browser, "usingMobileKey": mobile}
    assert delivered(flag(**fields))["clientSide"] is browser
