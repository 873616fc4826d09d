"""`bootstrap`: plan and apply in one call, at the start of a program."""

from __future__ import annotations

import json
import logging
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ldinstrument.devserver import LocalLaunchDarkly
from ldinstrument.diagnostics import diagnostics
from ldinstrument.errors import CredentialsError, PlanError, Unauthorized, Unreachable
from ldinstrument.metrics.catalogs import Catalog, catalog
from ldinstrument.metrics.metric import Metric
from ldinstrument.metrics.standard import STANDARD_METRICS
from ldinstrument.rest import MetricsAPI, PageViewMetric, UrlMatch
from ldinstrument.scan import scan, startup
from ldinstrument.scan.startup import bootstrap

SUM = Metric("cart.value", unit="dollars", success_criteria="HigherThanBaseline", aggregation="sum")


ONCE = Metric("signup.done", measure="occurrence")


def test_bootstrap_is_idempotent_and_cheap(
    ld: LocalLaunchDarkly, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The default catalog, created once; the second time one call says that all is there."""
    monkeypatch.setenv("LDINSTRUMENT_URL", ld.url)
    monkeypatch.setattr(startup, "standard_metrics_in_use", lambda: None)
    catalog.add(SUM)
    first = bootstrap()
    assert first is not None
    assert {change.result for change in first.changes} == {"created"}
    assert {change.metric.key for change in first.changes} >= {
        metric.key for metric in (*STANDARD_METRICS, SUM)
    }
    calls: list[str] = []
    ld.fault(
        "*",
        times=None,
        status=500,
        when=lambda method, path, h, b: bool(calls.append(f"{method} {path}")),
    )
    second = bootstrap("default")
    assert second is not None
    assert {change.action for change in second.changes} == {"unchanged"}
    assert calls == ["GET /api/v2/metrics/default"]


def test_bootstrap_begins_anywhere(
    ld: LocalLaunchDarkly, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that processes which start together share the work; what it says is in the order of the
    catalog.
    """
    monkeypatch.setattr(random, "shuffle", list.reverse)
    wanted = [Metric(f"any.m{number}", measure="count") for number in range(4)]
    done = bootstrap("p", token=token, base_uri=ld.url, catalog=wanted)
    assert [change.metric for change in done.changes] == wanted
    with MetricsAPI("p", token=token, base_uri=ld.url) as api:
        assert [metric.key for metric in api.list()] == ["any.m3", "any.m2", "any.m1", "any.m0"]


def test_bootstrap_reports_what_only_a_refused_create_shows(
    ld: LocalLaunchDarkly, token: str
) -> None:
    """A metric that no list had, of a kind that cannot be fed: the others are created, and it is an
    error.
    """
    with MetricsAPI("p", token=token, base_uri=ld.url) as api:
        api.create(PageViewMetric(ONCE.key, (UrlMatch("substring", "/x"),)))
        empty = json.dumps({"items": [], "totalCount": 0})
        ld.fault("/api/v2/metrics/p", method="GET", status=200, body=empty, times=None)
        with pytest.raises(PlanError, match=r"signup\.done: it exists as kind"):
            bootstrap("p", token=token, base_uri=ld.url, catalog=[ONCE, SUM])
        assert api.get(SUM.key).unit == "dollars"


def test_bootstrap_reports_drift_and_changes_nothing(
    ld: LocalLaunchDarkly, api: MetricsAPI, token: str, caplog: pytest.LogCaptureFixture
) -> None:
    """One line per metric, once, however often it runs."""
    api.create(Metric("signup.done", measure="count"))
    for _ in range(3):
        done = bootstrap("default", catalog=[ONCE], token=token, base_uri=ld.url)
    assert done is not None
    assert [change.metric.key for change in done.drift] == ["signup.done"]
    assert api.get("signup.done").measure == "count"
    assert [record.getMessage() for record in caplog.records if record.name == "ldinstrument"] == [
        "metric 'signup.done' in LaunchDarkly differs from the code in unitAggregationType; see: "
        "ldinstrument plan"
    ]


def test_bootstrap_is_inert_when_disabled(monkeypatch: pytest.MonkeyPatch) -> None:
    """LDINSTRUMENT_DISABLED=1: no search for tokens, no network, an empty plan."""
    monkeypatch.setenv("LDINSTRUMENT_DISABLED", "1")
    done = bootstrap()
    assert done is not None
    assert done.changes == ()
    assert bootstrap(wait=False) is None


def test_bootstrap_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, ld: LocalLaunchDarkly, token: str
) -> None:
    """No token, a wrong one: the errors of each."""
    with pytest.raises(CredentialsError, match="no LaunchDarkly API token"):
        bootstrap("p")
    ld.fault("*", status=401, times=None)
    with pytest.raises(Unauthorized):
        bootstrap("p", token=token, base_uri=ld.url)


def created_in_time(api: MetricsAPI, key: str) -> bool:
    """Wait until LaunchDarkly has the metric *key*; False after a minute."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        if api.find(key) is not None:
            return True
        time.sleep(0.05)
    return False


def test_what_is_declared_after_bootstrap_is_created_too(
    ld: LocalLaunchDarkly, api: MetricsAPI, token: str
) -> None:
    """Middleware, a URLconf and tasks declare theirs when they are loaded."""
    own = Catalog([Metric("a.first", "count")])

    bootstrap("default", catalog=own, token=token, base_uri=ld.url, wait=False)
    first = created_in_time(api, "a.first")
    own.add(Metric("b.later", "count"), Metric("c.later", "count"))

    assert first
    assert created_in_time(api, "b.later")
    assert created_in_time(api, "c.later")


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_worker_creates_what_it_declares_itself(
    ld: LocalLaunchDarkly, api: MetricsAPI, token: str
) -> None:
    """The thread of the parent is not there."""
    own = Catalog([Metric("a.parent", "count")])
    bootstrap("default", catalog=own, token=token, base_uri=ld.url, wait=False)
    assert created_in_time(api, "a.parent")

    child = os.fork()
    if not child:
        own.add(Metric("b.child", "count"))
        time.sleep(60)  # until it is killed
        os._exit(0)
    try:
        assert created_in_time(api, "b.child")
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


# The exit waits for the thread as long as a full machine needs.
PATIENT = """
from ldinstrument.scan import startup
startup.EXIT_SECONDS = 60.0
"""


PROGRAM = f"""
import sys, time
import ldinstrument as ld
{PATIENT}

@ld.track_task("shop.search")
def search(): ...

def checkout():
    with ld.session("user-1"):
        if sys.argv[1] == "sell":
            ld.track_revenue(3.0)
            getattr(ld, "track_" + "satisfaction")(80)

if __name__ == "__main__":
    ld.bootstrap("default", wait=False)
    checkout()
    time.sleep(float(sys.argv[2]))
"""


def test_bootstrap_and_plan_agree_on_one_file(
    ld: LocalLaunchDarkly, api: MetricsAPI, tmp_path: Path
) -> None:
    """Of the standard metrics those that the program uses."""
    program = tmp_path / "agreeing.py"
    program.write_text(PROGRAM)
    environment = {**os.environ, "LDINSTRUMENT_URL": ld.url}

    subprocess.run(
        [sys.executable, program, "look", "1.5"], env=environment, check=True, timeout=60
    )

    wanted = {metric.key for metric in scan(str(program)).metrics}
    assert {metric.key for metric in api.list()} == wanted
    assert "revenue.impact" in wanted
    assert "user.satisfaction" not in wanted


FASTAPI = {
    "app.py": f"""
import ldinstrument as ld
{PATIENT}
from fastapi import FastAPI
from fastapi.testclient import TestClient
from ldinstrument.integrations import asgi

app = FastAPI()
app.add_middleware(asgi.SessionMiddleware, context=lambda scope: "user-1", request_metrics=True)

@ld.track_interaction("shop.answer")
async def answer(): ...

@app.get("/ask")
async def ask():
    await answer()
    ld.track_conversion(49.0)

if __name__ == "__main__":
    ld.bootstrap("default", wait=False)
    with TestClient(app) as client:
        client.get("/ask").raise_for_status()
"""
}
DJANGO = {
    "app.py": f"""
import django
import ldinstrument as ld
{PATIENT}
from django.conf import settings
from django.test import Client

MIDDLEWARE = ["ldinstrument.integrations.django.SessionMiddleware"]
settings.configure(ROOT_URLCONF="views", SECRET_KEY="x", ALLOWED_HOSTS=["*"], MIDDLEWARE=MIDDLEWARE)

if __name__ == "__main__":
    django.setup()
    ld.bootstrap("default", wait=False)
    Client().get("/buy")
""",
    "views.py": """
import ldinstrument as ld
from django.http import HttpResponse
from django.urls import path

@ld.track_task("shop.buy")
def work(): ...

def buy(request):
    work()
    ld.track_revenue(3.0, context="user-1")
    return HttpResponse("ok")

urlpatterns = [path("buy", buy)]
""",
}


@pytest.mark.parametrize("sources", [FASTAPI, DJANGO], ids=["fastapi", "django"])
def test_what_frameworks_declare_after_bootstrap_is_created_and_planned(
    ld: LocalLaunchDarkly,
    api: MetricsAPI,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    sources: dict[str, str],
) -> None:
    """Middleware is built when the application starts, a URLconf is read at the first request."""
    for name, source in sources.items():
        (tmp_path / name).write_text(source)
    environment = {**os.environ, "LDINSTRUMENT_URL": ld.url}
    monkeypatch.chdir(tmp_path)

    subprocess.run([sys.executable, "app.py"], env=environment, check=True, timeout=60)
    planned = subprocess.run(
        [sys.executable, "-m", "ldinstrument", "plan", *sources, "--json"],
        env=environment,
        capture_output=True,
        timeout=60,
    )

    changes = json.loads(planned.stdout)["changes"]
    assert {change["key"]: change["action"] for change in changes} == {
        metric.key: "unchanged" for metric in api.list()
    }
    assert "request.duration" in {change["key"] for change in changes}
    if sources is FASTAPI:
        assert "http.response.5xx" in {change["key"] for change in changes}
    assert {"business.conversion", "revenue.impact"} & {change["key"] for change in changes}


def test_a_standard_metric_that_no_source_shows_is_created_at_its_first_use(
    ld: LocalLaunchDarkly, api: MetricsAPI, tmp_path: Path
) -> None:
    """No number without a metric."""
    program = tmp_path / "hiding.py"
    program.write_text(PROGRAM)
    environment = {**os.environ, "LDINSTRUMENT_URL": ld.url}

    with subprocess.Popen([sys.executable, program, "sell", "30"], env=environment) as process:
        try:
            assert created_in_time(api, "user.satisfaction")
        finally:
            process.kill()


def test_a_program_that_ends_at_once_has_its_metrics(
    ld: LocalLaunchDarkly, api: MetricsAPI, tmp_path: Path
) -> None:
    """The thread behind it is given a moment."""
    program = tmp_path / "short.py"
    program.write_text(PROGRAM)
    environment = {**os.environ, "LDINSTRUMENT_URL": ld.url}
    ld.fault("/api/v2/metrics/*", method="GET", delay=0.5)

    subprocess.run([sys.executable, program, "look", "0"], env=environment, check=True, timeout=60)

    assert api.find("shop.search.duration") is not None


def test_bootstrap_has_a_deadline(ld: LocalLaunchDarkly, token: str) -> None:
    """A server that hangs on every call: over soon after the time-out for everything together."""
    ld.fault("*", times=None, delay=30, status=200)
    began = time.monotonic()
    with pytest.raises(Unreachable):
        bootstrap("p", token=token, base_uri=ld.url, timeout=1)
    assert time.monotonic() - began < 15


def test_a_name_that_never_resolves_does_not_hold_bootstrap(
    monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    """Name resolution has no time-out; bootstrap has."""
    released = threading.Event()

    def never(*_: Any, **__: Any) -> Any:
        released.wait(60)
        raise OSError("no such name")

    monkeypatch.setattr(socket, "getaddrinfo", never)
    began = time.monotonic()
    try:
        with pytest.raises(Unreachable, match="within"):
            bootstrap("p", token=token, base_uri="https://launchdarkly.invalid", timeout=0.2)
    finally:
        released.set()
    assert time.monotonic() - began < 30
    wait_until(lambda: not bootstrap_threads())


def test_bootstrap_says_where_another_token_stands(
    ld: LocalLaunchDarkly, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Two variables that differ: one line, without the tokens."""
    monkeypatch.setenv("LAUNCHDARKLY_API_HOST", ld.url)
    monkeypatch.setenv("LD_API_KEY", "api-secret-one")
    monkeypatch.setenv("LAUNCHDARKLY_ACCESS_TOKEN", "api-secret-two")
    bootstrap("default", catalog=[ONCE])
    assert (
        "another token stands in LAUNCHDARKLY_ACCESS_TOKEN; the one from LD_API_KEY is used"
        in caplog.text
    )
    assert "secret" not in caplog.text


def wait_until(done: Any, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not done() and time.monotonic() < end:
        time.sleep(0.01)
    assert done()


def bootstrap_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "ldinstrument.bootstrap"]


def test_at_start_up_it_returns_at_once_and_works_behind(
    ld: LocalLaunchDarkly, api: MetricsAPI, token: str
) -> None:
    """The host goes on while LaunchDarkly is slow; the metrics are there later."""
    slow = ld.fault("/api/v2/metrics/default", method="GET", delay=1.0, after=True)
    assert bootstrap("default", catalog=[ONCE], token=token, base_uri=ld.url, wait=False) is None
    assert bootstrap_threads()[0].daemon
    wait_until(lambda: not bootstrap_threads())
    assert slow.hits == 1
    assert api.get("signup.done").measure == "occurrence"


def test_at_start_up_it_creates_what_was_declared_by_then_first(
    ld: LocalLaunchDarkly, api: MetricsAPI, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when the catalog has lost it before the thread comes to it; what came since follows."""
    late = threading.Event()

    def slow(*arguments: Any, **options: Any) -> MetricsAPI:
        assert late.wait(60)
        return MetricsAPI(*arguments, **options)

    monkeypatch.setattr(startup, "MetricsAPI", slow)
    own = Catalog([ONCE])
    bootstrap("default", token=token, base_uri=ld.url, catalog=own, wait=False)
    own.clear()
    own.add(Metric("x.later", measure="count"))
    late.set()
    wait_until(lambda: not bootstrap_threads())
    assert [metric.key for metric in api.list(sort="createdAt")] == [ONCE.key, "x.later"]


def test_at_start_up_it_creates_what_is_declared_before_the_thread_has_a_turn(
    ld: LocalLaunchDarkly, api: MetricsAPI, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a busy machine a thread may begin after the modules that are imported next."""
    turn, start_thread = threading.Event(), startup.start_thread

    def late(name: str, work: Callable[[], None]) -> threading.Thread | None:
        def wait_and_work() -> None:
            assert turn.wait(60)
            work()

        return start_thread(name, wait_and_work)

    monkeypatch.setattr(startup, "start_thread", late)
    own = Catalog([ONCE])
    bootstrap("default", token=token, base_uri=ld.url, catalog=own, wait=False)
    own.add(Metric("x.later", measure="count"))
    turn.set()
    wait_until(lambda: not bootstrap_threads())
    assert {metric.key for metric in api.list()} == {ONCE.key, "x.later"}


def test_at_start_up_what_fails_waits_for_the_next_declaration(
    ld: LocalLaunchDarkly, token: str
) -> None:
    """It is not asked for again at once: LaunchDarkly has just refused."""
    refusal = ld.fault("*", status=401, times=None)
    own = Catalog([ONCE])
    bootstrap("default", token=token, base_uri=ld.url, catalog=own, wait=False)
    wait_until(lambda: not bootstrap_threads())
    asked = refusal.hits
    own.add(Metric("x.later", measure="count"))
    wait_until(lambda: not bootstrap_threads())
    assert refusal.hits == 2 * asked


@pytest.mark.parametrize("strict", [False, True])
def test_at_start_up_failures_are_one_line(
    token: str, caplog: pytest.LogCaptureFixture, ld: LocalLaunchDarkly, strict: bool
) -> None:
    """A server that is down, a token that is wrong, no project: logged once, nothing raised, no
    secret.
    """
    diagnostics.strict = strict
    ld.fault("*", status=401, times=None)
    for _ in range(3):
        assert (
            bootstrap("p", token=token, base_uri="http://127.0.0.1:9", timeout=0.3, wait=False)
            is None
        )
        assert bootstrap("p", token=token, base_uri=ld.url, wait=False) is None
        assert bootstrap(token="sdk-secret", wait=False) is None
        wait_until(lambda: not bootstrap_threads())
    lines = [record.getMessage() for record in caplog.records if record.name == "ldinstrument"]
    assert len(lines) == (0 if strict else 3)
    assert not any("secret" in line for line in lines)


def test_at_start_up_one_metric_in_error_does_not_keep_the_others(
    ld: LocalLaunchDarkly, api: MetricsAPI, token: str, caplog: pytest.LogCaptureFixture
) -> None:
    """session.duration in seconds is said; the other metrics are created."""
    api.create(Metric("session.duration", unit="seconds", success_criteria="LowerThanBaseline"))
    bootstrap("default", catalog=STANDARD_METRICS, token=token, base_uri=ld.url, wait=False)
    wait_until(lambda: not bootstrap_threads())
    assert api.count() == len(STANDARD_METRICS)
    assert "seconds" in caplog.text


def test_what_apply_creates_is_logged_without_noise(
    ld: LocalLaunchDarkly, token: str, caplog: pytest.LogCaptureFixture
) -> None:
    """One info line that names what was created."""
    caplog.set_level(logging.INFO, "ldinstrument")
    bootstrap("default", catalog=[ONCE, SUM], token=token, base_uri=ld.url)
    assert [record.getMessage() for record in caplog.records if record.name == "ldinstrument"] == [
        "created in LaunchDarkly project default: signup.done, cart.value"
    ]
