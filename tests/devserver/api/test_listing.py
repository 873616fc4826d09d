"""Lists: pages and their links, filters and sorting."""

from __future__ import annotations

from typing import Any

import pytest

from ldinstrument.devserver.api.listing import filters, page_links, sorted_by, whole_number
from ldinstrument.devserver.responses import RefusedRequest

from .rest_answers import BASE, keys, refused


@pytest.fixture(name="many")
def _many(metric):
    for i in range(55):
        extra = {"isNumeric": False, "unit": None, "successCriteria": None} if i % 5 == 0 else {}
        metric(
            key=f"m-{i:02}",
            name=f"Name {54 - i:02}",
            eventKey=f"e-{i % 3}",
            tags=["all", f"t{i % 2}"],
            **extra,
        )


def test_pages_hold_20_by_default_and_links_lead_through_all(http, many):
    """First, last, next and previous are links that work."""
    answer = http("GET", BASE)
    assert len(keys(answer)) == 20
    assert answer.json()["totalCount"] == 55
    found, path = [], BASE + "?limit=20"
    while path:
        page = http("GET", path)
        found += keys(page)
        path = page.json()["_links"].get("next", {}).get("href")
    assert found == [f"m-{i:02}" for i in range(55)]
    assert keys(http("GET", page.json()["_links"]["first"]["href"]))[0] == "m-00"
    assert keys(http("GET", page.json()["_links"]["prev"]["href"]))[0] == "m-20"
    assert keys(http("GET", page.json()["_links"]["last"]["href"]))[-1] == "m-54"


@pytest.mark.parametrize(
    "query",
    [
        "limit=51",
        "limit=0",
        "limit=x",
        "limit=-1",
        "offset=-1",
        "sort=key",
        "expand=foo",
        "filter=key equals x",
        "filter=tags equals",
        "filter=isNumeric equals maybe",
        'filter=tags contains ["a"',
        "filter=query equals a b,,",
        "filter=metricUsedIn equals moon",
    ],
)
def test_a_wrong_query_is_refused(http, query):
    """A bound, a field, an operator or a value that the API does not know."""
    name, _, value = query.partition("=")
    refused(http("GET", BASE, params={name: value}))


def test_lists_are_sorted_by_creation_or_name(http, many):
    """A leading minus turns the order round."""
    assert keys(http("GET", f"{BASE}?limit=2&sort=-createdAt")) == ["m-54", "m-53"]
    assert keys(http("GET", f"{BASE}?limit=2&sort=createdAt")) == ["m-00", "m-01"]
    assert keys(http("GET", f"{BASE}?limit=2&sort=name")) == ["m-54", "m-53"]
    assert keys(http("GET", f"{BASE}?limit=2&sort=-name")) == ["m-00", "m-01"]


@pytest.mark.parametrize(
    ("filter", "expected"),
    [
        ("query equals M-07", ["m-07"]),
        ("query equals name 54", ["m-00"]),
        (
            'tags contains ["all","t1"],eventKeys anyOf ["e-0"]',
            [f"m-{i:02}" for i in range(55) if i % 2 and i % 3 == 0],
        ),
        ('eventKeys anyOf ["e-1","e-2"]', [f"m-{i:02}" for i in range(55) if i % 3]),
        ("isNumeric equals false", [f"m-{i:02}" for i in range(0, 55, 5)]),
        ("eventKind equals click", []),
        ("unitAggregationType equals sum", []),
        ("dataSourceKeys notEquals elsewhere,query equals m-1", [f"m-1{i}" for i in range(10)]),
        ("hasConnections equals true", []),
        ("metricUsedIn equals guarded_rollouts", []),
    ],
)
def test_filters_find_what_they_say(http, many, filter, expected):
    """Several clauses all have to hold."""
    assert keys(http("GET", BASE, params={"filter": filter, "limit": 50})) == expected[:50]


def metric_document(key: str, **fields: Any) -> dict[str, Any]:
    found = {"key": key, "name": key, "tags": [], "dataSource": {"key": "ld"}, "_creationDate": 1}
    return {**found, **fields}


def passing(text: str, *metrics: dict[str, Any], used: tuple[str, ...] = ()) -> list[str]:
    """The keys of the metrics that pass a filter."""
    tests = filters(text, used)
    return [metric["key"] for metric in metrics if all(test(metric) for test in tests)]


def test_no_filter_lets_everything_through():
    """And a comma joins two that both have to hold."""
    one, other = metric_document("a", tags=["x"]), metric_document("ab", tags=["x", "y"])
    assert passing("", one, other) == ["a", "ab"]
    assert passing('tags contains ["x","y"]', one, other) == ["ab"]
    assert passing('query equals "a,b"', metric_document("m", name="A,B"), one) == ["m"]
    assert passing("query equals a, tags contains y", one, other) == ["ab"]


@pytest.mark.parametrize(
    ("where", "expected"),
    [("experiments", ["a"]), ("any", ["a"]), ("none", ["b"]), ("guarded_rollouts", [])],
)
def test_where_a_metric_is_used(where, expected):
    """Guarded rollouts, teams and views do not exist here."""
    both = metric_document("a"), metric_document("b")
    assert passing(f"metricUsedIn equals {where}", *both, used=("a",)) == expected
    assert passing("view equals mine", *both) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("query equals", "cannot read"),
        ("query equals ", "a value is missing"),
        ("query contains a", "there is no query contains"),
        ('tags contains ["a"', "the value is not JSON"),
        ('query equals "a" b', "expected a comma"),
        ("isNumeric equals maybe", "expected true or false"),
        ("query equals " + "[" * 100_000, "the value is not JSON"),
    ],
)
def test_a_filter_that_cannot_be_read_says_where(text, said):
    """In no more characters than a person reads."""
    with pytest.raises(RefusedRequest, match=said) as caught:
        filters(text, ())
    assert len(caught.value.message) < 120


def test_names_are_sorted_whatever_their_case():
    """Equal ones by key; the other order is the whole list turned round."""
    listed = [
        metric_document("c", name="b"),
        metric_document("b", name="B"),
        metric_document("a", name="Z"),
    ]
    assert [metric["key"] for metric in sorted_by(listed, "name")] == ["b", "c", "a"]
    assert [metric["key"] for metric in sorted_by(listed, "-name")] == ["a", "c", "b"]
    assert [metric["key"] for metric in sorted_by(listed, "-createdAt")] == ["a", "b", "c"]
    with pytest.raises(RefusedRequest, match="sort must be"):
        sorted_by(listed, "key")


@pytest.mark.parametrize("text", ["", "-1", "1.0", "x", "51", "0", "1" * 10])
def test_a_number_out_of_its_bounds_is_refused(text):
    """With the bounds; without one the default counts."""
    with pytest.raises(RefusedRequest, match="limit must be an integer from 1 to 50"):
        whole_number({"limit": text}, "limit", 20, 1, 50)
    assert whole_number({}, "limit", 20, 1, 50) == 20
    assert whole_number({"limit": "50"}, "limit", 20, 1, 50) == 50


@pytest.mark.parametrize(
    ("offset", "total", "expected"),
    [
        (0, 0, {"self": 0}),
        (0, 20, {"self": 0}),
        (0, 21, {"self": 0, "first": 0, "last": 20, "next": 20}),
        (20, 41, {"self": 20, "first": 0, "last": 40, "next": 40, "prev": 0}),
        (5, 20, {"self": 5, "first": 0, "last": 0, "prev": 0}),
        (60, 41, {"self": 60, "first": 0, "last": 40, "prev": 40}),
    ],
)
def test_links_lead_where_there_is_something(offset, total, expected):
    """Other parameters go along."""
    links = page_links("/api/v2/x", {"sort": "name", "offset": "7"}, 20, offset, total)
    assert {name: link["href"] for name, link in links.items()} == {
        name: f"/api/v2/x?sort=name&offset={at}&limit=20" for name, at in expected.items()
    }
