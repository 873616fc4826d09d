"""`ldinstrument plan` and `apply`."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from shells import KEYS, SUM, Ran, Sitting

from ldinstrument.cli import plans
from ldinstrument.devserver import LocalLaunchDarkly
from ldinstrument.metrics.metric import Metric
from ldinstrument.metrics.standard import STANDARD_METRICS
from ldinstrument.rest import MetricsAPI


def test_plan_apply_plan(run: Callable[..., Ran], api: MetricsAPI, app: str) -> None:
    """Changes: 3. Applied: 0. Nothing to do: 0. And looking creates nothing, whatever the code does
    on import.
    """
    planned = run("plan", app)
    assert planned.code == 3
    assert "checkout.total.duration" in planned.out
    assert "program_cli.py:8" in planned.out
    assert "3 to create" in planned.out
    assert f"ldinstrument apply {app}" in planned.err
    assert "token from LDINSTRUMENT_URL" in planned.err
    assert api.count() == 0
    applied = run("apply", app)
    assert (applied.code, applied.out.count("created: ")) == (0, 3)
    assert f"{api.host.url}/projects/default/metrics/cart.value" in applied.out
    assert {found.key for found in api.list()} == KEYS
    again = run("plan", app)
    assert (again.code, "3 as they should be" in again.out) == (0, True)


def test_no_line_of_a_plan_is_wider_than_80_columns_for_tables(run: Callable[..., Ran]) -> None:
    """Without a terminal, tables are 80 columns wide, keys are whole and nothing is coloured."""
    planned = run("plan")
    assert planned.code == 3
    rows = [line for line in planned.out.splitlines() if not line.startswith(("?", "!"))]
    assert max(map(len, rows)) <= 80
    assert "\x1b" not in planned.out
    for metric in STANDARD_METRICS:
        assert metric.key in planned.out


def test_plan_as_json(run: Callable[..., Ran], app: str) -> None:
    """The same as data, with nothing else on stdout."""
    planned = run("plan", app, "--json")
    found = planned.json
    assert "imported" in planned.err
    assert (planned.code, found["exitCode"], found["project"]) == (3, 3, "default")
    assert {change["key"]: change["action"] for change in found["changes"]} == dict.fromkeys(
        KEYS, "create"
    )
    assert found["changes"][0]["declaredAt"] == "program_cli.py:6"
    applied = run("apply", app, "--json")
    assert {change["result"] for change in applied.json["changes"]} == {"created"}


def test_drift_is_4_and_only_patched_with_update(
    run: Callable[..., Ran], api: MetricsAPI, app: str
) -> None:
    """Field by field, with the number of experiments; apply without --update leaves it and says
    so.
    """
    api.create(
        Metric("cart.value", unit="euros", success_criteria="HigherThanBaseline", aggregation="sum")
    )
    planned = run("plan", app)
    assert planned.code == 4
    assert "unit: 'euros' -> 'dollars'" in planned.out
    assert "used by 0 experiments" in planned.out
    applied = run("apply", app)
    assert (applied.code, "still different" in applied.out) == (4, True)
    assert api.get("cart.value").unit == "euros"
    updated = run("apply", app, "--update")
    assert (updated.code, "updated: cart.value" in updated.out) == (0, True)
    assert api.get("cart.value").unit == "dollars"


def test_an_error_is_1_and_nothing_is_applied(run: Callable[..., Ran], api: MetricsAPI) -> None:
    """session.duration in seconds."""
    api.create(Metric("session.duration", unit="seconds", success_criteria="LowerThanBaseline"))
    assert run("plan").code == 1
    applied = run("apply")
    assert applied.code == 1
    assert "error: nothing was applied: session.duration: it counts seconds" in applied.err
    assert api.count() == 1


def test_what_the_source_tells(run: Callable[..., Ran], app: str) -> None:
    """Undeclared keys make it 4; dynamic ones and modules that cannot be imported are told."""
    Path("program_bad.py").write_text(
        "import ldinstrument as ld\n\ndef f(key, s: ld.Session):\n    s.record('Cart.Value')\n    "
        "s.record(key)\n"
        "    with ld.track_task(f'{key}.x'): ...\n"
    )
    planned = run("plan", app, "program_bad.py")
    assert planned.code == 4
    assert (
        "program_bad.py:4: event key 'Cart.Value': it differs only by case from 'cart.value'"
        in planned.out
    )
    assert "cannot be seen from here: 2" in planned.out
    assert "program_bad.py:6: track_task" in planned.out
    found = run("plan", app, "program_bad.py", "--json").json
    assert (len(found["undeclared"]), len(found["dynamic"])) == (1, 2)
    assert run("apply", app, "program_bad.py").code == 4


def test_context_kinds_are_created_only_when_asked(
    run: Callable[..., Ran], api: MetricsAPI, app: str
) -> None:
    """The advice names the option, and the option does it."""
    Path("program_units.py").write_text(
        "from ldinstrument import Metric\n"
        "METRICS = [Metric('org.seats', measure='count', analysis_units=['organization'])]\n"
    )
    planned = run("plan", "program_units:METRICS")
    assert (planned.code, "--create-context-kinds" in planned.out) == (1, True)
    assert run("apply", "program_units:METRICS", "--create-context-kinds").code == 0
    assert "organization" in api.analysis_units()


def test_a_failed_apply_is_1(run: Callable[..., Ran], ld: LocalLaunchDarkly, app: str) -> None:
    """LaunchDarkly refuses one: told with its words, the others are created."""
    ld.fault(
        "/api/v2/metrics/default",
        method="POST",
        status=400,
        body='{"message": "odd", "id": "support-1"}',
    )
    applied = run("apply", app)
    assert applied.code == 1
    assert re.search(r"failed: \S+: odd .*support-1", applied.err)
    assert "2 done, 1 failed" in applied.out


def test_what_launchdarkly_leaves_out_in_silence(run: Callable[..., Ran], api: MetricsAPI) -> None:
    """It answers 200 to fields that it does not know; the command does not claim that they were
    changed.
    """
    api.create(SUM)
    ran = run("metrics", "update", "cart.value", "untis=euros", "name=Value of a cart")
    assert (ran.code, api.get("cart.value").name) == (1, "Value of a cart")
    assert "untis still is None" in ran.err
    same = run(
        "metrics", "update", "cart.value", 'tags=["b", "a"]', "archived=false", "description="
    )
    assert (same.code, same.err.count("still")) == (0, 0)


def test_an_import_that_takes_long_is_named(
    run: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, app: str
) -> None:
    """A module that serves on import never ends; one sees which."""
    told, said = threading.Event(), plans.say

    def say(*words: Any, **options: Any) -> None:
        said(*words, **options)
        told.set()

    monkeypatch.setattr(plans, "IMPORT_SECONDS", 0.01)
    monkeypatch.setattr(plans, "say", say)
    monkeypatch.setattr(plans, "told", told, raising=False)
    (tmp_path / "program_slow.py").write_text(
        "from ldinstrument.cli import plans\nassert plans.told.wait(100)"
    )
    assert "still importing program_slow.py; does it run" in run("plan", "program_slow.py").err


def test_a_long_plan_lists_what_differs(
    run: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two thousand lines of "as in the code" hide the one that matters."""
    monkeypatch.chdir(tmp_path)
    program = tmp_path / "many.py"
    text = "import ldinstrument as ld\nfor n in range(60): ld.catalog.add(ld.Metric(f'a.m{n}', 'count'))\n"
    program.write_text(text)
    first = run("plan", str(program))
    run("apply", str(program))
    program.write_text(text + "ld.catalog.add(ld.Metric('b.new', 'count'))\n")

    second = run("plan", str(program))

    assert first.out.count("create: count") == 60
    assert "b.new" in second.out
    assert "a.m1" not in second.out
    assert "60 as in the code are not listed" in second.out


def test_names_that_read_badly_are_remarked(run: Callable[..., Ran], app: str) -> None:
    """The lint of names is part of the plan, and no error."""
    Path("program_named.py").write_text(
        "from ldinstrument import Metric, catalog\n"
        "catalog.add(Metric('CartMs', unit='ms', success_criteria='LowerThanBaseline'))\n"
    )
    planned = run("plan", "program_named.py")
    assert planned.code == 3
    assert "CartMs: the key is not lower case" in planned.out


@pytest.mark.parametrize(
    ("arguments", "answer", "asked", "unit"),
    [
        ((), "n", True, "euros"),
        ((), "y", True, "dollars"),
        (("--yes",), "", False, "dollars"),
        (("--json",), "", False, "dollars"),
    ],
)
def test_apply_update_asks_on_a_terminal(
    ld: LocalLaunchDarkly,
    api: MetricsAPI,
    app: str,
    arguments: tuple[str, ...],
    answer: str,
    asked: bool,
    unit: str,
) -> None:
    """After each field was shown; nothing at all is done without a yes. Programs and --yes are not
    asked.
    """
    api.create(SUM.replace(unit="euros"))
    sitting = Sitting(ld.url, ("apply", app, "--update", *arguments), answer)
    assert (sitting.asked, api.get("cart.value").unit) == (asked, unit), sitting.seen
    assert (sitting.code, api.count()) == ((1, 1) if answer == "n" else (0, 3))
    if asked:
        assert "unit: 'euros' -> 'dollars'" in sitting.seen
        assert "change 1 metrics, used by 0 experiments?" in sitting.seen
