"""`ldinstrument doctor`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from shells import SUM, Ran

from ldinstrument.metrics.standard import STANDARD_METRICS
from ldinstrument.rest import MetricsAPI


def test_doctor(run: Callable[..., Ran], api: MetricsAPI, app: str) -> None:
    """Broken: 1. One metric as a walk, all of them as a list; the command that mends it."""
    walked = run("doctor", "cart.value", "--code", app)
    assert walked.code == 1
    assert "what helps: ldinstrument apply" in walked.out
    run("apply", app)
    everything = run("doctor", "--code", app)
    assert everything.code == 1
    assert "has never" in everything.out
    assert everything.out.count("what helps") == 1
    found = run("doctor", "cart.value", "--code", app, "--json").json
    assert found["findings"][-1]["check"] == "last seen"


def test_what_helps_can_be_pasted(run: Callable[..., Ran], app: str) -> None:
    """The commands that are named are for this code and project, not for the standard metrics of
    another.
    """
    helps = run("doctor", "cart.value", "--code", app, "--project", "other", "--json").json[
        "findings"
    ][-1]["command"]
    assert helps == f"ldinstrument apply {app} --project other"
    assert run(*helps.split()[1:]).code == 0
    listed = run("doctor", "--code", app, "--project", "other")
    assert "ldinstrument doctor" not in listed.err
    run("metrics", "update", "cart.value", "unitAggregationType=average", "--project", "other")
    drifted = run("doctor", "cart.value", "--code", app, "--project", "other").out
    assert f"what helps: ldinstrument apply {app} --project other --update" in drifted
    planned = run("plan", app, "--project", "other")
    assert f"next: ldinstrument apply {app} --project other --update" in planned.err


def test_doctor_without_anything(run: Callable[..., Ran], api: MetricsAPI) -> None:
    """Nobody said what the code needs: the standard metrics that exist, and how to ask for more."""
    empty = run("doctor")
    assert (empty.code, "--code YOUR_PACKAGE" in empty.err, "broken" in empty.out) == (
        0,
        True,
        False,
    )
    api.create(STANDARD_METRICS[0])
    found = run("doctor", "--json")
    assert (found.code, list(found.json["metrics"])) == (1, [STANDARD_METRICS[0].key])


def test_doctor_without_the_code_looks_at_launchdarkly_only(
    run: Callable[..., Ran], api: MetricsAPI
) -> None:
    """It says that it has not seen the code, and claims nothing about it."""
    api.create(SUM)
    walked = run("doctor", "cart.value", "--json").json["findings"]
    told = {finding["check"]: finding["status"] for finding in walked}
    assert (told["definition"], told["event key"]) == ("unknown", "ok")
    assert "--code" in next(
        finding["command"] for finding in walked if finding["check"] == "definition"
    )


def test_doctor_names_what_the_code_records_in_vain(
    run: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the place and what to do; a misspelt event key counts for nothing."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "vain.py").write_text(
        "import ldinstrument as ld\n"
        "def f():\n"
        "    with ld.session() as s: s.record('revenue.impcat', 3)\n"
    )

    told = run("doctor", "--code", "vain.py", "--json").json["findings"]

    (vain,) = [finding for finding in told if finding["check"] == "code"]
    assert vain["what"] == "vain.py:3 records 'revenue.impcat'"
    assert "revenue.impact" in vain["command"]


def test_what_helps_many_metrics_is_said_once(
    run: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the command holds the metric's key."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "failing.py").write_text(
        "from ldinstrument import Metric\n"
        "A, B, C = (Metric(f'errors.{kind}', 'occurrence', success_criteria='LowerThanBaseline')\n"
        "           for kind in ('first', 'second', 'third'))\n"
    )
    run("apply", "failing.py")

    told = run("doctor", "--code", "failing.py").out

    assert told.count("no experiment uses it") == 3
    assert told.count("what helps") == 1
    assert "(and 2 metrics more)" in told
