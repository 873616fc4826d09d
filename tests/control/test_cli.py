"""The command line, command by command, with its errors and exit codes, against the local
LaunchDarkly.
"""

from __future__ import annotations

import json
import os
import pty
import re
import shlex
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import ldclient
import pytest

from ldinstrument.cli import main, plans, terminal
from ldinstrument.devserver import LocalLaunchDarkly, experiment_flag
from ldinstrument.metrics.metric import Metric
from ldinstrument.metrics.standard import STANDARD_METRICS
from ldinstrument.rest import MetricsAPI

ROOT = Path(__file__).resolve().parents[2]
SUM = Metric("cart.value", unit="dollars", success_criteria="HigherThanBaseline", aggregation="sum")
APP = """
    import ldinstrument as ld

    print("imported")
    ld.bootstrap(wait=False)  # must not create anything when the code is only looked at
    ld.catalog.add(ld.Metric("cart.value", unit="dollars", success_criteria="HigherThanBaseline", aggregation="sum"))

    @ld.track_task("checkout.total")
    def total(s: ld.Session):
        s.record("cart.value", 3)
"""
# A shell that starts the tests in the background has Ctrl-C ignored, and children inherit that.
PROGRAM = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from ldinstrument.cli import main, plans, terminal
sys.exit(main())
"""
COMMAND = [sys.executable, "-c", PROGRAM]
KEYS = {"cart.value", "checkout.total.duration", "checkout.total.success_rate"}


class Ran:
    """What a command did."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture(name="run")
def _run(
    ld: LocalLaunchDarkly, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Ran]:
    """Run the command line in this process, 80 columns wide, without a terminal."""
    monkeypatch.setenv("LDINSTRUMENT_URL", ld.url)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("COLUMNS", raising=False)

    def run(*arguments: str) -> Ran:
        capsys.readouterr()
        code = main(arguments)
        captured = capsys.readouterr()
        return Ran(code, captured.out, captured.err)

    return run


@pytest.fixture(name="app")
def _app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A program, and the name of its file."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    (tmp_path / "program_cli.py").write_text(textwrap.dedent(APP))
    yield "program_cli.py"
    for name in set(sys.modules) - before:
        if name.startswith("program"):
            del sys.modules[name]


# -- plan and apply --------------------------------------------------------------------------------


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


def test_a_local_launchdarkly_that_does_not_run(
    run: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Said soon, with the command that starts one."""
    monkeypatch.setenv("LDINSTRUMENT_URL", "http://127.0.0.1:9")
    began = time.monotonic()
    ran = run("plan")
    assert (ran.code, "is it running? (ldinstrument dev)" in ran.err) == (1, True)
    assert time.monotonic() - began < 30


def test_a_local_launchdarkly_that_is_slow(
    run: Callable[..., Ran], ld: LocalLaunchDarkly, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It listens, so it is waited for as any other: a busy machine is no reason to say that nobody
    is there.
    """
    monkeypatch.setattr(terminal, "LOCAL_SECONDS", 1.0)
    ld.fault("/api/v2/metrics/default", delay=2.0)
    assert run("metrics", "list").code == 0


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


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["plan", "no_such_package"], "cannot be imported"),
        (["plan", "nothing.py"], "does not exist"),
        (["plan", "os:path"], "no Catalog"),
        (["plan", "--host", "http://example.org"], "https"),
        (["plan", "--host", "http://127.0.0.1:9"], "no LaunchDarkly API token"),
        (["metrics", "get", "no.such"], "Invalid resource identifier|Not Found|not found"),
        (["metrics", "rename", "no.such", "x"], "404"),
        (["metrics", "create", "Bad Key", "--measure", "count"], "letters, digits"),
        (["metrics", "update", "a.b", "key=c"], "never changes"),
    ],
)
def test_errors_are_one_line_and_1(
    run: Callable[..., Ran], arguments: list[str], words: str
) -> None:
    """No traceback, a clear word."""
    ran = run(*arguments)
    assert ran.code == 1
    assert re.search(words, ran.err)
    errors = [line for line in ran.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "Traceback" not in ran.err


CREATE = ["metrics", "create", "a.b"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["plan", "--nope"], "--nope"),
        (["metrics", "get"], "key"),
        (["metrics", "update", "a.b", "nonsense"], "FIELD=VALUE"),
        (["nope"], "nope"),
        (["metrics", "list", "-n", "0"], "limit"),
        (["metrics", "list", "--kind", "trace"], "kind"),
        (["metrics", "list", "--sort", "size"], "createdAt"),
        (["metrics", "list", "--used-in", "flags"], "guarded_rollouts"),
        ([*CREATE, "--kind", "trace"], "pageview"),
        ([*CREATE, "--measure", "sum"], "occurrence"),
        (CREATE, "--unit and --lower-is-better"),
        ([*CREATE, "--unit", "ms"], "--lower-is-better or"),
        ([*CREATE, "--kind", "pageview"], "--url"),
        ([*CREATE, "--kind", "pageview", "--url", "/pricing"], "KIND:TEXT"),
        (
            [*CREATE, "--kind", "pageview", "--url", "exact:/x", "--unit", "ms"],
            "only for --kind custom",
        ),
        (
            [*CREATE, "--kind", "pageview", "--url", "exact:/x", "--selector", "a"],
            "only for --kind click",
        ),
        ([*CREATE, "--kind", "click", "--url", "exact:/x"], "--selector"),
        ([*CREATE, "--measure", "count", "--url", "exact:/x"], "only for --kind pageview"),
    ],
)
def test_wrong_usage_is_2(
    run: Callable[..., Ran],
    api: MetricsAPI,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    words: str,
) -> None:
    """As everywhere; an option that would be left out without a word is refused."""
    monkeypatch.setenv("COLUMNS", "300")
    ran = run(*arguments)
    assert (ran.code, api.count()) == (2, 0)
    assert words in ran.err


def test_version(run: Callable[..., Ran]) -> None:
    """What one is asked for in every issue."""
    assert run("--version").out == f"ldinstrument {metadata.version('ldinstrument')}\n"


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


# -- in the shell of somebody ----------------------------------------------------------------------

NOISY = """
import atexit, os, subprocess, threading
import ldinstrument as ld
print("from print")
os.write(1, b"from a write\\n")
subprocess.run(["echo", "from a child"], check=True)
atexit.register(print, "from an exit hook")
heard = threading.Event()
def later():
    while not heard.wait(0.001):
        print("from a thread")
threading.Thread(target=later, daemon=True).start()
@ld.track_task("noisy")
def f(): ...
"""


@pytest.fixture(name="shell")
def _shell(
    ld: LocalLaunchDarkly, tmp_path: Path
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the command line in a process of its own, without a terminal."""

    def shell(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        extra = {"LDINSTRUMENT_URL": ld.url, "PYTHONPATH": str(ROOT), **options.pop("env", {})}
        return subprocess.run(
            [*COMMAND, *arguments], cwd=tmp_path, env={**os.environ, **extra}, timeout=120, text=True,
            **{"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
        )  # fmt: skip

    return shell


def test_nothing_but_the_answer_is_on_stdout(shell: Callable[..., Any], tmp_path: Path) -> None:
    """Imported code may write as it likes: prints, bare writes, children, threads, exit hooks."""
    (tmp_path / "noisy.py").write_text(NOISY)
    ran = shell("plan", "noisy.py", "--json")
    assert ran.returncode == 3, ran.stderr
    assert [change["key"] for change in json.loads(ran.stdout)["changes"]] == [
        "noisy.duration",
        "noisy.success_rate",
    ]
    for words in ("from print", "from a write", "from a child", "from an exit hook"):
        assert words in ran.stderr
    assert "from" not in shell("plan", "noisy.py").stdout


def test_threads_that_imported_code_leaves_running_are_not_waited_for(
    shell: Callable[..., Any], tmp_path: Path
) -> None:
    """A scheduler that starts on import would keep a deploy step for ever."""
    (tmp_path / "scheduler.py").write_text(
        "import threading\nimport ldinstrument as ld\n"
        "threading.Thread(target=threading.Event().wait).start()\n@ld.track_task('planned')\ndef "
        "f(): ..."
    )
    assert shell("plan", "scheduler.py").returncode == 3


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


def test_a_reader_that_has_gone_is_no_failure_of_ours(shell: Callable[..., Any]) -> None:
    """`| head -1` ends it as a shell expects, without a word."""
    for arguments in (("plan",), ("plan", "--json")):
        reading, writing = os.pipe()
        os.close(reading)
        try:
            ran = shell(*arguments, stdout=writing)
        finally:
            os.close(writing)
        assert ran.returncode == 141
        assert "pipe" not in ran.stderr.lower()


@pytest.mark.parametrize(
    "arguments", [("metrics", "list"), ("metrics", "list", "--json"), ("plan", "--json")]
)
def test_without_stdout_and_stdin(
    shell: Callable[..., Any], api: MetricsAPI, arguments: tuple[str, ...]
) -> None:
    """As some daemons start their children."""
    api.create(SUM)
    command = shlex.join([*COMMAND, *arguments])
    ran = subprocess.run(
        f"{command} <&- >&-", shell=True, stderr=subprocess.PIPE, text=True, timeout=120, check=False,
        env={**os.environ, "LDINSTRUMENT_URL": api.host.url},
    )  # fmt: skip
    assert ran.returncode == (3 if "plan" in arguments else 0), ran.stderr
    refused = subprocess.run(
        f"{shlex.join([*COMMAND, 'metrics', 'delete', 'cart.value'])} <&-", shell=True, capture_output=True, text=True,
        timeout=120, check=False, env={**os.environ, "LDINSTRUMENT_URL": api.host.url},
    )  # fmt: skip
    assert (refused.returncode, "--yes" in refused.stderr) == (2, True)


def test_a_terminal_that_is_poor_in_letters(
    shell: Callable[..., Any], ld: LocalLaunchDarkly
) -> None:
    """ASCII, and a name with half a character in it: tables escape, JSON stays JSON."""
    found = {
        "items": [{"key": "cart.value", "name": "Wärenkorb \U0001f6d2 \ud800"}],
        "totalCount": 1,
    }
    ld.fault("/api/v2/metrics/default", status=200, times=None, body=json.dumps(found))
    for encoding in ("ascii", "utf-8"):
        env = {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
        listed = shell("metrics", "list", env=env)
        assert (listed.returncode, "renkorb" in listed.stdout) == (0, True), listed.stderr
        (one,) = json.loads(shell("metrics", "list", "--json", env=env).stdout)
        assert one["name"].startswith("Wärenkorb")


def test_forced_colours_make_no_terminal(shell: Callable[..., Any], api: MetricsAPI) -> None:
    """FORCE_COLOR, as in many a CI: colours, and nobody is asked anything."""
    api.create(replace(SUM, unit="euros"))
    ran = shell("metrics", "update", "cart.value", "unit=pounds", env={"FORCE_COLOR": "1"})
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize("columns", ["30", "60", "80", "200"])
def test_no_table_loses_letters(
    run: Callable[..., Ran], api: MetricsAPI, monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    """However narrow: what does not fit is folded, not cut off."""
    name = "The value of a cart when it is paid"
    api.create(replace(SUM, key="a.rather.long.key.of.a.metric", name=name))
    monkeypatch.setenv("COLUMNS", columns)
    rows = run("metrics", "list").out.splitlines()
    ruler = next(line for line in run("metrics", "list").out.splitlines() if "─" in line)
    assert len(ruler) <= int(columns)
    for word in ("a.rather.long.key.of.a.metric", name.replace(" ", ""), "sumofdollars"):
        letters = sorted("".join(rows[2:]).replace(" ", ""))
        assert all(letters.count(letter) >= word.count(letter) for letter in set(word))


def test_a_token_is_named_by_its_source_only(
    run: Callable[..., Ran], ld: LocalLaunchDarkly, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two sources that differ are a warning; neither token is printed, not even on failure."""
    monkeypatch.setenv("LAUNCHDARKLY_API_HOST", ld.url)
    monkeypatch.setenv("LD_API_KEY", "api-secret-one")
    monkeypatch.setenv("LAUNCHDARKLY_ACCESS_TOKEN", "api-secret-two")
    ran = run("metrics", "list", "--project", "default")
    assert ran.code == 0
    assert "token from LD_API_KEY" in ran.err
    assert "warning: another token stands in LAUNCHDARKLY_ACCESS_TOKEN" in ran.err
    ld.fault("*", status=401, times=None)
    failed = run("plan", "--project", "default")
    assert failed.code == 1
    assert "secret" not in ran.out + ran.err + failed.out + failed.err


# -- metrics ---------------------------------------------------------------------------------------


def test_metrics_create_get_list_update_rename_delete(
    run: Callable[..., Ran], api: MetricsAPI
) -> None:
    """The life of a metric on the command line."""
    created = run("metrics", "create", "search.latency", "--unit", "milliseconds", "--lower-is-better",
                  "--percentile", "95", "--tag", "search", "--name", "Search latency",
                  "--analysis-unit", "user")  # fmt: skip
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
    assert [one["key"] for one in run("metrics", "list", "--json").json] == ["search.latency"]
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


def test_metrics_create_page_views_and_clicks(run: Callable[..., Ran], api: MetricsAPI) -> None:
    """The kinds that never pass through track."""
    assert (
        run(
            "metrics", "create", "pricing.seen", "--kind", "pageview", "--url", "substring:/pricing"
        ).code
        == 0
    )
    assert run("metrics", "create", "buy.clicked", "--kind", "click", "--url", "exact:https://example.org/",
               "--selector", "#buy", "--json").json["selector"] == "#buy"  # fmt: skip
    assert api.get("pricing.seen").raw["urls"] == [{"kind": "substring", "substring": "/pricing"}]


def test_control_characters_do_not_reach_the_terminal(
    run: Callable[..., Ran], api: MetricsAPI
) -> None:
    """A name in LaunchDarkly is somebody else's text."""
    api.create(Metric("odd.name", measure="count", name="red \x1b[31m [bold]x[/bold] \x07"))
    for command in (("list",), ("get", "odd.name"), ("rename", "odd.name", "\x1b[2J")):
        shown = run("metrics", *command)
        assert shown.code == 0
        assert not {"\x1b", "\x07"} & set(shown.out + shown.err)
    assert "[bold]" in run("metrics", "update", "odd.name", 'name="[bold]"').out


def test_names_that_read_badly_are_remarked(run: Callable[..., Ran], app: str) -> None:
    """The lint of names is part of the plan, and no error."""
    Path("program_named.py").write_text(
        "from ldinstrument import Metric, catalog\n"
        "catalog.add(Metric('CartMs', unit='ms', success_criteria='LowerThanBaseline'))\n"
    )
    planned = run("plan", "program_named.py")
    assert planned.code == 3
    assert "CartMs: the key is not lower case" in planned.out


def test_delete_asks_and_without_a_terminal_refuses(
    run: Callable[..., Ran], api: MetricsAPI
) -> None:
    """Nothing is deleted unless somebody says so."""
    api.create(SUM)
    refused = run("metrics", "delete", "cart.value")
    assert (refused.code, "--yes" in refused.err) == (2, True)
    assert api.count() == 1


class Sitting:
    """Somebody at a terminal, who answers the question that a command asks."""

    def __init__(self, url: str, arguments: tuple[str, ...], answer: str) -> None:
        mine, theirs = pty.openpty()
        command = subprocess.Popen(
            [*COMMAND, *arguments], stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
            env={**os.environ, "LDINSTRUMENT_URL": url, "COLUMNS": "200"},
        )  # fmt: skip
        os.close(theirs)
        self.seen = ""
        try:
            while piece := os.read(mine, 1000):
                self.seen += piece.decode(errors="replace")
                if "[y/N]" in self.seen and answer:
                    os.write(mine, answer.encode() + b"\n")
                    answer = ""
        except OSError:
            pass  # how a terminal says that the other side has gone
        self.code = command.wait(60)
        os.close(mine)

    @property
    def asked(self) -> bool:
        return "[y/N]" in self.seen


@pytest.mark.parametrize(("answer", "left"), [("n", 1), ("y", 0)])
def test_delete_on_a_terminal(
    ld: LocalLaunchDarkly, api: MetricsAPI, answer: str, left: int
) -> None:
    """A real terminal, a real question, a real answer."""
    api.create(SUM)
    sitting = Sitting(ld.url, ("metrics", "delete", "cart.value"), answer)
    assert (sitting.code, api.count()) == (left, left)
    assert "used by 0 experiments" in sitting.seen


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
    api.create(replace(SUM, unit="euros"))
    sitting = Sitting(ld.url, ("apply", app, "--update", *arguments), answer)
    assert (sitting.asked, api.get("cart.value").unit) == (asked, unit), sitting.seen
    assert (sitting.code, api.count()) == ((1, 1) if answer == "n" else (0, 3))
    if asked:
        assert "unit: 'euros' -> 'dollars'" in sitting.seen
        assert "change 1 metrics, used by 0 experiments?" in sitting.seen


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


# -- doctor ----------------------------------------------------------------------------------------


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
    told = {one["check"]: one["status"] for one in walked}
    assert (told["definition"], told["event key"]) == ("unknown", "ok")
    assert "--code" in next(one["command"] for one in walked if one["check"] == "definition")


# -- around a local LaunchDarkly -------------------------------------------------------------------


def test_readout_and_tail(run: Callable[..., Ran], ld: LocalLaunchDarkly, api: MetricsAPI) -> None:
    """What real traffic by the real SDK left behind."""
    ld.set_flag(experiment_flag("new-cart", [False, True]))
    api.create(SUM)
    client = ldclient.LDClient(
        ldclient.Config(
            "sdk-test",
            base_uri=ld.url,
            events_uri=ld.url,
            stream_uri=ld.url,
            diagnostic_opt_out=True,
        )
    )
    context = ldclient.Context.create("u-1")
    client.variation("new-cart", context, False)
    client.track("cart.value", context, {"via": "test"}, 12.5)
    client.close()
    ld.wait_for(lambda: ld.custom_events("cart.value"))
    shown = run("readout")
    assert shown.code == 0
    assert re.search(r"(?s)new-cart, iteration 1.*cart\.value .* 1 of 1 units, 1 events", shown.out)
    assert {one["metric"] for one in run("readout", "--json").json["rows"]} == {"cart.value"}
    tailed = run("tail", "--key", "cart.value")
    assert 'cart.value  = 12.5  user:u-1  {"via": "test"}' in tailed.out
    (line,) = run("tail", "--key", "cart.value", "--json", "-n", "1").out.splitlines()
    assert json.loads(line)["metricValue"] == 12.5
    assert run("tail", "-n", "0").out == ""


def test_tail_follows(ld: LocalLaunchDarkly) -> None:
    """Events show while it runs; Ctrl-C ends it without a traceback."""
    environ = {
        **os.environ,
        "LDINSTRUMENT_URL": ld.url,
        "no_proxy": "127.0.0.1",
        "PYTHONUNBUFFERED": "1",
    }
    command = [*COMMAND, "tail", "-f", "-n", "0", "--json"]
    following = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environ
    )
    lines: list[str] = []
    assert following.stdout is not None
    reader = threading.Thread(
        target=lambda: lines.extend(iter(following.stdout.readline, "")), daemon=True
    )  # type: ignore[union-attr]
    reader.start()
    try:
        assert following.stderr is not None
        assert "token from" in following.stderr.readline()
        end = time.monotonic() + 100
        while not lines and time.monotonic() < end:
            client = ldclient.LDClient(
                ldclient.Config(
                    "sdk-test", events_uri=ld.url, use_ldd=True, diagnostic_opt_out=True
                )
            )
            client.track("followed", ldclient.Context.create("u"))
            client.close()
            time.sleep(0.3)
        following.send_signal(2)
        assert following.wait(100) == 0
        assert "Traceback" not in following.stderr.read()
    finally:
        following.kill()
        following.wait()
    assert "followed" in {json.loads(line).get("key") for line in lines}


def test_readout_is_for_a_local_launchdarkly_only(
    run: Callable[..., Ran], ld: LocalLaunchDarkly, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against LaunchDarkly itself: what to start instead; no request is made. The same for a proxy
    on this machine.
    """
    monkeypatch.setenv("LD_API_KEY", "api-x")
    ran = run("readout", "--host", "https://launchdarkly.invalid", "--project", "p")
    assert (ran.code, "ldinstrument dev" in ran.err) == (1, True)
    ld.fault("/dev/readout", status=404)
    assert "only a local LaunchDarkly has this" in run("readout").err


def test_dev_serves_until_ctrl_c() -> None:
    """It prints its address, works, keeps its data in a file, and ends cleanly."""
    command = [*COMMAND, "dev", "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        url = process.stdout.readline().split()[-1]
        assert f"export LDINSTRUMENT_URL={url}" in process.stdout.readline()
        with MetricsAPI(token="api-x", base_uri=url) as api:
            api.create(SUM)
            assert api.count() == 1
        process.send_signal(2)
        assert process.wait(100) == 0
    finally:
        process.kill()
        process.wait()


def test_dev_on_a_taken_port(run: Callable[..., Ran], ld: LocalLaunchDarkly) -> None:
    """One line."""
    ran = run("dev", "--port", str(ld.port))
    assert (ran.code, "error: " in ran.err, "Traceback" in ran.err) == (1, True, False)


def test_sweep(
    run: Callable[..., Ran], ld: LocalLaunchDarkly, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session that nobody ended, in a file; swept once, delivered once; a store that cannot be
    opened is an error.
    """
    monkeypatch.setenv("LAUNCHDARKLY_SDK_KEY", "sdk-sweep")
    address = f"sqlite:///{tmp_path}/sessions.db"
    program = (
        "import sys, ldinstrument as ld; from ldinstrument.stores import open_store\n"
        "store = open_store(sys.argv[1], idle=0.2, sweep=False)\n"
        "for n in (1, 2):\n"
        "    with ld.session(f'u-{n}', id=f's-{n}', store=store) as s: s.interaction()\n"
        "store.close()\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program, address], capture_output=True, text=True, timeout=110
    )
    assert ran.returncode == 0, ran.stderr
    time.sleep(0.5)
    first = run("sweep", address, "--idle", "0.2", "--limit", "1", "--json")
    assert (first.code, first.json["sessions"]) == (3, 1), first.err
    swept = run("sweep", address, "--idle", "0.2", "--json")
    assert (swept.code, swept.json["sessions"]) == (0, 1), swept.err
    ld.wait_for(lambda: len(ld.custom_events("session.interactions")) >= 2)
    assert run("sweep", address, "--idle", "0.2").out.startswith("0 sessions")
    assert len(ld.custom_events("session.interactions")) == 2
    assert "error: ftp: is no session store" in run("sweep", "ftp://example.org").err
    assert "no store at" not in swept.err
    mistyped = run("sweep", f"sqlite:///{tmp_path}/sesions.db")
    assert (mistyped.code, "no store at" in mistyped.err) == (0, True)


# -- without its libraries -------------------------------------------------------------------------


@pytest.mark.parametrize("missing", ["typer", "rich"])
def test_without_typer_or_rich_it_says_what_to_install(missing: str) -> None:
    """The command to type, no traceback."""
    program = (
        f"import sys; sys.modules[{missing!r}] = None; "
        "from ldinstrument.cli import main; sys.exit(main(['plan']))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, timeout=110
    )
    assert ran.returncode == 1
    assert "pip install 'ldinstrument[cli]'" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_every_command_has_help_and_is_in_the_docs(run: Callable[..., Ran]) -> None:
    """docs/cli.md names every command and every option."""
    import typer.main

    from ldinstrument.cli.app import app

    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    root: Any = typer.main.get_command(app)
    commands = {name: command for name, command in root.commands.items() if name != "metrics"}
    commands |= {
        f"metrics {name}": command for name, command in root.commands["metrics"].commands.items()
    }
    assert len(commands) >= 13
    for name, command in commands.items():
        assert f"ldinstrument {name}" in page, name
        helped = run(*name.split(), "--help")
        assert (helped.code, bool(command.help)) == (0, True)
        for parameter in command.params:
            longest = max(parameter.opts, key=len)
            if longest.startswith("--") and longest != "--help":
                assert parameter.help, f"{name} {longest}"
                assert longest in page, f"{name} {longest}"


def test_the_console_script_is_installed() -> None:
    """`ldinstrument --help` as a user types it."""
    script = Path(sys.executable).with_name("ldinstrument")
    ran = subprocess.run([str(script), "--help"], capture_output=True, text=True, timeout=110)
    assert (ran.returncode, "doctor" in ran.stdout) == (0, True)
