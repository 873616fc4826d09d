"""Celery: a session goes to the worker with the message, and ends there. Real workers, real
client.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults

import ldclient
import pytest

import ldinstrument as ld
from ldinstrument import stores, testing
from ldinstrument.devserver import LocalLaunchDarkly
from ldinstrument.integrations.request_session import REQUEST
from ldinstrument.integrations.wsgi import SessionMiddleware
from ldinstrument.sessions import registry

celery = pytest.importorskip("celery")

from ldinstrument.integrations.celery import HEADER, TaskSender, instrument, packed, unpacked  # noqa: E402

HERE = Path(__file__).parent


def outcome(event: Any) -> tuple[int, int, int]:
    """Successes, failures, and runs that were neither."""
    return event["data"]["successes"], event["data"]["failures"], event["data"]["cancelled"]


@pytest.fixture
def eager() -> Any:
    """An application whose tasks run where they are sent."""
    app = celery.Celery("eager", broker="memory://")
    app.conf.task_always_eager = True
    return instrument(instrument(app))


def test_a_run_is_a_session_of_its_own_for_the_sender(eager: Any) -> None:
    """It has the sender's context and names the sender's session; instrumenting twice changes
    nothing.
    """

    @eager.task
    def work() -> str:
        ld.track_conversion(1.0)
        found = ld.current_session()
        return "none" if found is None else found.name

    with testing.recording() as events, ld.session("ada") as sender:
        assert work.delay().get() == "job"
        assert ld.current_session() is sender

    run = events.only("job.interactions")
    assert (run.context.key, run.value) == ("ada", 1)
    assert run.data["parentSessionId"] == sender.id
    assert run.data["task"].endswith("work")
    assert events.only("business.conversion").context.key == "ada"


def test_a_failing_task_is_a_failure_and_leaves_nobody_behind(eager: Any) -> None:
    """The session that was current before is current again."""

    @eager.task
    def fail() -> None:
        raise ValueError

    with testing.recording() as events:
        with ld.session("ada"):
            fail.apply()
        assert ld.current_session() is None

    assert (
        events.only("job.interactions").data["successes"],
        events.only("job.interactions").data["failures"],
    ) == (0, 1)
    assert registry.open_sessions() == []


def test_a_task_may_name_its_context_itself() -> None:
    """`context=` is given the task, with its arguments in `task.request`."""
    app = celery.Celery("own", broker="memory://")
    app.conf.task_always_eager = True
    instrument(app, context=lambda task: task.request.args[0])

    @app.task
    def greet(user: str) -> str:
        return user

    with testing.recording() as events:
        greet.delay("bob")

    assert events.only("job.interactions").context.key == "bob"


def test_the_header_carries_kinds_and_keys_and_no_attributes() -> None:
    """A broker is no place for personal data; anonymous stays anonymous."""
    from ldclient import Context

    user = Context.builder("ada").name("Ada Lovelace").set("email", "ada@example.org").build()
    team = Context.builder("t1").kind("team").anonymous(True).build()
    header = packed(TaskSender(Context.create_multi(user, team), "s-1"))

    assert "Lovelace" not in header
    assert "example.org" not in header
    context, session, visitor = unpacked(header)
    assert (session, visitor) == ("s-1", None)
    assert context is not None
    assert (
        context.fully_qualified_key
        == Context.create_multi(Context.create("ada"), team).fully_qualified_key
    )
    assert context.get_individual_context("team").anonymous is True


@pytest.mark.parametrize("header", ["", "{}", "[1]", '{"context": [["user"]]}', 7])
def test_a_header_that_is_not_ours_costs_only_itself(header: Any) -> None:
    """Somebody else's message must not stop the task."""
    assert unpacked(header) == (None, None, None)


def _sent(
    sender: str, pool: list[str], launchdarkly: LocalLaunchDarkly, redis: Any, tmp_path: Path
) -> tuple[subprocess.CompletedProcess[str], str]:
    """Run *sender* beside a worker of *pool*; return how it ended, and what both said."""
    environment = {
        **os.environ,
        "CELERY_SHOP_REDIS": redis.url,
        "LDINSTRUMENT_URL": launchdarkly.url,
        "no_proxy": "127.0.0.1",
        "PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")]),
    }
    command = [sys.executable, "-m", "celery", "-A", "celery_shop", "worker", "--loglevel=WARNING"]
    log = tmp_path / "worker.log"
    with log.open("w") as output:
        worker = subprocess.Popen(
            [*command, *pool], env=environment, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        sent = subprocess.run(
            [sys.executable, "-c", sender], env=environment, capture_output=True, text=True
        )
        worker.send_signal(signal.SIGTERM)
        worker.wait()
    finally:
        worker.kill()
        worker.wait()
    return sent, f"sender: {sent.stderr}\nworker: {log.read_text()}"


@pytest.mark.parametrize(
    "pool",
    [["--pool=solo"], ["--pool=prefork", "--concurrency=2"], ["--pool=threads", "--concurrency=2"]],
    ids=["solo", "prefork", "threads"],
)
def test_a_real_worker_ends_the_session_and_delivers_it(
    pool: list[str], launchdarkly: LocalLaunchDarkly, redis_of_its_own: Any, tmp_path: Path
) -> None:
    """Client made at import, before the fork; every run arrives once, for the sender, also those of
    the last moment.
    """
    sent, told = _sent(SENDER, pool, launchdarkly, redis_of_its_own, tmp_path)
    assert sent.returncode == 0, told
    assert "packed 6" in sent.stdout
    launchdarkly.wait_for(lambda: len(launchdarkly.custom_events("job.interactions")) >= 9, 60)
    launchdarkly.wait_for(lambda: len(launchdarkly.custom_events("business.conversion")) >= 6, 60)
    runs = launchdarkly.custom_events("job.interactions")
    by_task: dict[str, list[Any]] = {}
    for run in runs:
        by_task.setdefault(run["data"]["task"].rpartition(".")[2], []).append(run)
    assert {task: len(found) for task, found in by_task.items()} == {
        "pack": 6,
        "break_down": 1,
        "flaky": 2,
    }, told
    assert [outcome(run) for run in by_task["pack"]] == [(1, 0, 0)] * 6
    assert [outcome(run) for run in by_task["break_down"]] == [(0, 1, 0)]
    assert sorted(outcome(run) for run in by_task["flaky"]) == [(0, 0, 0), (1, 0, 0)]
    assert {"ada"} == {run["context"]["key"] for run in runs}
    assert (
        sum(event["metricValue"] for event in launchdarkly.custom_events("business.conversion"))
        == 12.0
    )


SENDER = """
import ldinstrument as ld
from celery_shop import break_down, flaky, pack
with ld.session("ada"):
    sent = [pack.delay(number) for number in range(6)]
    broken, flaky = break_down.delay(), flaky.delay()
print("packed", len([result.get(timeout=100) for result in sent]))
broken.get(timeout=100, propagate=False)
print(flaky.get(timeout=100))
"""


def test_a_soft_time_limit_ends_a_flush_that_waits(
    launchdarkly: LocalLaunchDarkly, redis_of_its_own: Any, tmp_path: Path
) -> None:
    """Celery raises it out of a signal's handler: the task must see it, and no event is lost."""
    launchdarkly.fault("/bulk", delay=6.0, times=1)
    pool = ["--pool=prefork", "--concurrency=1"]
    sent, told = _sent(LINGERER, pool, launchdarkly, redis_of_its_own, tmp_path)
    assert sent.stdout.split() == ["stopped"], told
    launchdarkly.wait_for(lambda: len(launchdarkly.custom_events("job.interactions")) >= 1, 60)
    (run,) = launchdarkly.custom_events("job.interactions")
    assert outcome(run) == (1, 0, 0)
    assert len(launchdarkly.custom_events("lingered")) == 1


LINGERER = """
import ldinstrument as ld
from celery_shop import linger
with ld.session("ada"):
    print(linger.delay().get(timeout=100))
"""


def test_with_a_store_a_run_is_part_of_the_visit_it_was_sent_from(
    launchdarkly: LocalLaunchDarkly,
) -> None:
    """The message carries the visitor: page and job are one session, with the sum of both."""
    environment = {"LDINSTRUMENT_URL": launchdarkly.url, "no_proxy": "127.0.0.1"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        client = ldclient.LDClient(ld.launchdarkly_config("sdk-test", events_only=True))
    with (
        contextlib.closing(client),
        stores.open_store("memory:", client=client, sweep=False) as store,
    ):
        app = celery.Celery("visits", broker="memory://")
        app.conf.task_always_eager = True
        instrument(app, store=store, client=client)

        @app.task
        def pack() -> None:
            ld.track_conversion(2.0)

        def page(environ: Any, start_response: Any) -> list[bytes]:
            ld.track_conversion(1.0)
            pack.delay()
            start_response("200 OK", [])
            return []

        site = SessionMiddleware(page, context="ada", store=store, client=client, secret="s")
        environ: dict[str, Any] = {}
        setup_testing_defaults(environ)
        body = site(environ, lambda *_: None)
        list(body)
        body.close()  # type: ignore[attr-defined]
        assert 1 == store.holdings().open
        visitor = environ[REQUEST].visitor
        stores.end_session(store, visitor)
        store.sweep()

        launchdarkly.wait_for(lambda: launchdarkly.custom_events("session.interactions"))
    assert [2] == [
        event["metricValue"] for event in launchdarkly.custom_events("session.interactions")
    ]
    assert [3.0] == [
        event["metricValue"] for event in launchdarkly.custom_events("business.conversion")
    ]
    assert [] == launchdarkly.custom_events("job.interactions")


def test_nothing_is_added_to_a_message_sent_outside_a_session() -> None:
    """No session, no header: other people's messages stay as they are."""
    app = celery.Celery("plain", broker="memory://")
    instrument(app)
    seen: list[dict[str, Any]] = []

    @app.task
    def work() -> None:
        """Never run: nobody listens."""

    celery.signals.before_task_publish.connect(
        lambda headers, **_: seen.append(dict(headers)), weak=False
    )
    work.delay()
    with ld.session("ada"):
        work.delay()

    assert [HEADER in headers for headers in seen] == [False, True]
