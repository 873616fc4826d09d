"""`ldinstrument metrics`."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from shells import SUM, Ran, Sitting

from ldinstrument.devserver import LocalLaunchDarkly, experiment_flag
from ldinstrument.rest import MetricsAPI


def test_metrics_create_get_list_update_rename_delete(
    run: Callable[..., Ran], api: MetricsAPI
) -> None:
    """The life of a metric on the command line."""
    created = run(
        "metrics",
        "create",
        "search.latency",
        "--unit",
        "milliseconds",
        "--lower-is-better",
        "--percentile",
        "95",
        "--tag",
        "search",
        "--name",
        "Search latency",
        "--analysis-unit",
        "user",
    )
    assert (created.code, "created: search.latency" in created.out) == (0, True)
    shown = run("metrics", "get", "search.latency").out
    for words in (
        "p95",
        "milliseconds",
        "lower",
        "Search latency",
        "never",
        f"{api.host.url}/projects/default",
    ):
        assert words in shown
    assert run("metrics", "get", "search.latency", "--json").json["percentileValue"] == 95
    listed = run("metrics", "list", "--tag", "search", "--kind", "custom", "--query", "search")
    assert "search.latency" in listed.out
    assert "p95 of" in listed.out
    assert [metric["key"] for metric in run("metrics", "list", "--json").json] == ["search.latency"]
    updated = run(
        "metrics",
        "update",
        "search.latency",
        "unit=seconds",
        "percentileValue=99",
        "--comment",
        "slower",
    )
    assert "percentileValue: 95 -> 99" in updated.out
    assert "updated: search.latency" in updated.out
    again = run("metrics", "update", "search.latency", "unit=seconds", "percentileValue=99")
    assert (again.code, "nothing to change: search.latency" in again.out) == (0, True)
    assert "updated" not in again.out
    assert api.get("search.latency").percentile == 99
    assert (
        "'Latency of search'" in run("metrics", "rename", "search.latency", "Latency of search").out
    )
    deleted = run("metrics", "delete", "search.latency", "no.such", "--yes")
    assert (deleted.code, "deleted: search.latency" in deleted.out) == (1, True)
    assert "there is no metric no.such" in deleted.err
    assert api.count() == 0


def test_metrics_create_page_views_and_clicks(run: Callable[..., Ran], api: MetricsAPI) -> None:
    """The kinds that never pass through track."""
    assert (
        run(
            "metrics", "create", "pricing.seen", "--kind", "pageview", "--url", "substring:/pricing"
        ).code
        == 0
    )
    assert (
        run(
            "metrics",
            "create",
            "buy.clicked",
            "--kind",
            "click",
            "--url",
            "exact:https://example.org/",
            "--selector",
            "#buy",
            "--json",
        ).json["selector"]
        == "#buy"
    )
    assert api.get("pricing.seen").raw["urls"] == [{"kind": "substring", "substring": "/pricing"}]


def test_delete_asks_and_without_a_terminal_refuses(
    run: Callable[..., Ran], api: MetricsAPI
) -> None:
    """Nothing is deleted unless somebody says so."""
    api.create(SUM)
    refused = run("metrics", "delete", "cart.value")
    assert (refused.code, "--yes" in refused.err) == (2, True)
    assert api.count() == 1


@pytest.mark.parametrize(("answer", "left"), [("n", 1), ("y", 0)])
def test_delete_on_a_terminal(
    ld: LocalLaunchDarkly, api: MetricsAPI, answer: str, left: int
) -> None:
    """A real terminal, a real question, a real answer."""
    api.create(SUM)
    sitting = Sitting(ld.url, ("metrics", "delete", "cart.value"), answer)
    assert (sitting.code, api.count()) == (left, left)
    assert "used by 0 experiments" in sitting.seen


@pytest.mark.parametrize(("answer", "unit"), [("n", "dollars"), ("y", "euros")])
def test_update_asks_when_experiments_use_it(
    ld: LocalLaunchDarkly, api: MetricsAPI, answer: str, unit: str
) -> None:
    """And only then."""
    api.create(SUM)
    assert not Sitting(ld.url, ("metrics", "update", "cart.value", "name=Cart"), "").asked
    ld.set_flag(experiment_flag("exp", metrics=["cart.value"]))
    sitting = Sitting(ld.url, ("metrics", "update", "cart.value", "unit=euros"), answer)
    assert "1 experiments use it; change it?" in sitting.seen
    assert api.get("cart.value").unit == unit
