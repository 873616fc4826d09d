"""What the modules declare and use, gathered into one catalog."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
from scanned import keys, runs

from ldinstrument.errors import DefinitionError
from ldinstrument.scan import scan


def test_standard_metrics_only_where_something_uses_them(package: Callable[..., str]) -> None:
    """The default catalog has them all; a program needs those that it feeds."""
    assert keys(scan(package(a="import ldinstrument"))) == set()
    assert keys(
        scan(package(a="from ldinstrument import track_feedback\ndef f(): track_feedback(True)"))
    ) == {
        "user.satisfaction",
        "user.negative_feedback",
    }
    assert keys(scan(package(a="import ldinstrument as ld\n@ld.session\ndef f(): ..."))) == {
        "session.duration",
        "session.success_rate",
        "session.interactions",
    }
    assert keys(
        scan(package(a="import ldinstrument as ld\ndef f(): ld.SessionMetricsTracker()"))
    ) == {
        "session.duration",
        "session.success_rate",
        "session.interactions",
    }


def test_keys_that_nobody_declared(package: Callable[..., str]) -> None:
    """A misspelt key, one that differs by case, and one that is simply new."""
    name = package(
        a="""
            import ldinstrument as ld
            ld.catalog.add(ld.Metric("cart.size", measure="count", event_key="Cart size"))

            def work(session):
                session.record("cart.size")
                session.record("Cart size")
                session.record("Cart Size")
                ld.current_session().record("cart.sise")
                session.record("entirely.new")
        """
    )
    found = scan(name)
    assert keys(found) == {"cart.size"}
    assert [(unread.key, unread.place) for unread in found.undeclared] == [
        ("Cart Size", f"{name}/a.py:8"),
        ("cart.sise", f"{name}/a.py:9"),
        ("entirely.new", f"{name}/a.py:10"),
    ]
    assert "only by case from 'Cart size'" in found.undeclared[0].advice()
    assert "catalog.add(Metric('entirely.new'" in found.undeclared[2].advice()


def test_dynamic_keys_are_counted_with_their_places(package: Callable[..., str]) -> None:
    """What only running would tell: f-strings, parameters, tables."""
    name = package(
        a="""
            import ldinstrument as ld

            def work(kind, s: "ld.Session", KEY):
                with ld.track_task(f"work.{kind}"): ...
                ld.current_session().record(kind)
                with ld.session("u", name=kind): ...
                ld.track_task(KEY, record=dict(a=len))
                ld.Metric(kind, measure="count")

            KEY = "shadowed"
        """
    )
    found = scan(name)
    assert [(int(place.rpartition(":")[2]), what) for place, what in found.dynamic] == [
        (5, "track_task(f'work.{kind}')"),
        (6, "record(kind)"),
        (7, "session(name=kind)"),
        (8, "track_task(KEY)"),
        (8, "track_task(record=...)"),
        (9, "Metric(kind)"),
    ]
    assert keys(found) == set()


def test_names_that_read_badly_are_not_warned_about_in_between(package: Callable[..., str]) -> None:
    """The plan remarks on them; a Python warning would name a line of ours."""
    name = package(a="import ldinstrument as ld\ndef f():\n    with ld.track_task('Bad'): ...")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert keys(scan(name)) == runs("Bad")


def test_a_catalog_by_name(package: Callable[..., str]) -> None:
    """`module:attribute` is taken as it is: a Catalog, a list, a dotted attribute."""
    name = package(
        a="""
            from ldinstrument import Catalog, Metric, catalog as default
            mine = Catalog([Metric("only.this", measure="count")])
            class Settings:
                metrics = [Metric("that.too", measure="count")]
            default.add(Metric("not.this", measure="count"))
            empty, text = [], "abc"
        """
    )
    assert keys(scan(f"{name}.a:mine")) == {"only.this"}
    assert scan(f"{name}.a:mine").place("only.this") == f"{name}/a.py:3"
    assert keys(scan(f"{name}.a:Settings.metrics")) == {"that.too"}
    for missing in ("empty", "text", "nope", "Settings"):
        with pytest.raises(DefinitionError, match="no Catalog"):
            scan(f"{name}.a:{missing}")


def test_a_definition_that_cannot_work_is_reported(package: Callable[..., str]) -> None:
    """In a body nobody has run yet, a metric without a unit is still found."""
    name = package(a="from ldinstrument import Metric\ndef f(s):\n    return Metric('no.unit')")
    found = scan(name)
    assert found.unreadable[0][0] == f"{name}/a.py:3"
    assert "unit" in found.unreadable[0][1]


def test_two_definitions_of_one_key_are_reported(package: Callable[..., str]) -> None:
    """In two bodies that nobody has run: the first counts, the other is named with its place."""
    name = package(
        a="""
            from ldinstrument import Metric
            def f(): return Metric("twice.said", measure="count")
            def g(): return Metric("twice.said", measure="occurrence")
            def h(): return Metric("twice.said", measure="count")
        """
    )
    found = scan(name)
    assert [metric.measure for metric in found.metrics] == ["count"]
    assert found.unreadable == (
        (f"{name}/a.py:4", f"metric 'twice.said' is defined otherwise at {name}/a.py:3"),
    )


def test_a_replaced_standard_metric_belongs_to_the_program(package: Callable[..., str]) -> None:
    """catalog.replace of a standard metric is the program's own definition."""
    name = package(
        a="""
            from ldinstrument import Metric, catalog
            catalog.replace(Metric("revenue.impact", unit="euros", success_criteria="HigherThanBaseline"))
        """
    )
    found = scan(name)
    assert keys(found) == {"revenue.impact"}
    assert found.metrics[0].unit == "euros"


def test_model_calls(package: Callable[..., str]) -> None:
    """`track_ai` inside a function body, which importing never runs: its task's metrics and those
    of the model; no cost where none is wanted.
    """
    found = scan(
        package(
            a="""
            import ldinstrument as ld

            def app():
                @ld.track_ai("answer", cost=False)
                def answer(): ...

                with ld.track_ai("rerank", metrics=("success_rate", "tokens.total")):
                    pass
            """,
        )
    )
    assert keys(found) == {
        "answer.success_rate",
        "answer.duration",
        "answer.unfinished",
        "answer.time_per_chunk",
        "answer.time_to_first_token",
        "answer.tokens.input",
        "answer.tokens.output",
        "answer.tokens.total",
        "answer.tokens.cached",
        "answer.tokens.reasoning",
        "answer.tool_calls",
        "answer.attempts",
        "rerank.success_rate",
        "rerank.tokens.total",
    }


def test_bridges_of_spans(package: Callable[..., str]) -> None:
    """What feeds model calls, agents and tools from spans: the metrics of each of the three tasks."""
    found = scan(
        package(
            a="""
            import ldinstrument.otel
            from ldinstrument.otel import install_agents_traces, install_bridge

            KEY = "shop.agents"

            def setup(key, prices):
                install_bridge(cost=prices)
                install_agents_traces(key=KEY, cost=False)
                ldinstrument.otel.SpanBridge(key)
            """,
        )
    )
    assert {
        "gen_ai.tokens.total",
        "gen_ai.cost",
        "gen_ai.agent.inference_calls",
        "gen_ai.agent.tool_calls",
        "gen_ai.tool.unfinished",
        "shop.agents.success_rate",
        "shop.agents.tool.duration",
    } <= keys(found)
    assert "shop.agents.cost" not in keys(found)
    assert len(found.dynamic) == 1
