"""`ldinstrument doctor` of programs that ran: each has one fault, and the doctor names it."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable

import pytest
from shells import ROOT, Ran

from ldinstrument.devserver import LocalLaunchDarkly, experiment_flag
from ldinstrument.metrics.metric import Metric
from ldinstrument.metrics.standard import BUSINESS_CONVERSION, session_metrics
from ldinstrument.rest import MetricsAPI

PREAMBLE = """
import time
from ldclient import Config, Context, LDClient
import ldinstrument as ld
from ldinstrument.settings import local_url
urls = dict.fromkeys(("base_uri", "stream_uri", "events_uri"), local_url())
ours = {"plugins": [ld.Plugin()], "event_processor_class": ld.EventProcessor}
def client_of(**parts):
    return LDClient(Config("sdk-test", diagnostic_opt_out=True, **urls, **parts), start_wait=10)
def expose(client, key):
    time.sleep(0.003)
    client.variation("new-cart", Context.create(key), False)
    time.sleep(0.003)
"""


@pytest.fixture(name="play")
def _play(ld: LocalLaunchDarkly, api: MetricsAPI) -> Callable[..., None]:
    """Run a program in a process of its own, whose metrics exist and whose flag is an experiment."""
    ld.set_flag(experiment_flag("new-cart", [False, True]))
    for metric in (*session_metrics(), BUSINESS_CONVERSION):
        api.create(metric)

    def play(program: str) -> None:
        subprocess.run(
            [sys.executable, "-c", PREAMBLE + textwrap.dedent(program)],
            env={**os.environ, "LDINSTRUMENT_URL": ld.url, "PYTHONPATH": str(ROOT)},
            timeout=120,
            check=True,
        )

    return play


def warned(run: Callable[..., Ran], metric: str, check: str) -> str:
    """Return what the doctor warns of *metric* under *check*; it must not call all well."""
    ran = run("doctor", metric, "--json")
    assert ran.code in (1, 4)
    told = [
        finding["what"]
        for finding in ran.json["findings"]
        if (finding["check"].split(" ")[0], finding["status"]) == (check.split(" ")[0], "warning")
    ]
    return "; ".join(told)


HEALTHY = """
    client = client_of(**ours)
    for number in range(12):
        client.variation("new-cart", Context.create(f"u-{number}"), False)
        with ld.session(f"u-{number}", client=client) as s:
            s.interaction()
            s.conversion(3.0)
    client.close()
"""


def test_a_healthy_program_has_no_warning(
    play: Callable[..., None], run: Callable[..., Ran]
) -> None:
    """None of the checks below cries where nothing is wrong."""
    play(HEALTHY)

    for metric in ("session.duration", "session.success_rate", "business.conversion"):
        found = run("doctor", metric, "--json").json["findings"]
        told = {finding["check"]: finding["what"] for finding in found}
        wrong = [finding for finding in found if finding["status"] in ("warning", "broken")]
        assert [finding["check"] for finding in wrong] in ([], ["comparison"]), told


def test_a_client_without_our_plugin(play: Callable[..., None], run: Callable[..., Ran]) -> None:
    """Sessions go to a plain client: everything arrives, and nothing can fold."""
    play("""
        client = client_of()
        for number in range(3):
            expose(client, f"u-{number}")
            with ld.session(f"u-{number}", client=client) as s:
                s.interaction()
                s.conversion(3.0)
        client.flush()
        client.close()
    """)

    for metric in ("session.duration", "business.conversion"):
        assert warned(run, metric, "client") == (
            "3 events came from a client of sessions without ldinstrument's Plugin"
        )


def test_a_client_that_only_tracks_needs_no_plugin(
    play: Callable[..., None], run: Callable[..., Ran]
) -> None:
    """Beside a program with sessions whose client is known."""
    play("""
        plain, client = client_of(), client_of(**ours)
        for number in range(3):
            user = Context.create(f"u-{number}")
            with ld.session(user, client=client) as s:
                expose(client, f"u-{number}")
                s.conversion(3.0)
            plain.track("business.conversion", user, None, 3.0)
        for closing in (plain, client):
            closing.flush()
            closing.close()
    """)

    told = run("doctor", "business.conversion", "--json").out
    assert "6 events" in told
    assert "without ldinstrument" not in told


@pytest.mark.parametrize("parts", ["plugins=[ld.Plugin()]", "**ours", "attach"])
def test_a_client_that_is_known_is_no_warning(
    play: Callable[..., None], run: Callable[..., Ran], parts: str
) -> None:
    """Also where its events leave by the SDK's own event processor."""
    attached = parts == "attach"
    play(f"""
        client = client_of({"" if attached else parts})
        {"ld.attach(client)" if attached else ""}
        expose(client, "u-1")
        with ld.session("u-1", client=client) as s:
            s.interaction()
        client.flush()
        client.close()
    """)

    assert run("doctor", "session.duration", "--json").out.count("without ldinstrument") == 0


def test_sessions_that_began_before_their_exposure(
    play: Callable[..., None], run: Callable[..., Ran]
) -> None:
    """Two of three interactions, and most of the time, come before the flag is evaluated."""
    play("""
        client = client_of(**ours)
        for number in range(24):
            with ld.session(f"u-{number}", client=client) as s:
                s.interaction()
                time.sleep(0.02)
                s.interaction()
                expose(client, f"u-{number}")
                s.interaction()
        assert ld.stats().sessions["session"].diluted == 24
        client.close()
    """)

    time_before = warned(run, "session.duration", "dilution")
    rate_before = warned(run, "session.success_rate", "dilution")

    assert time_before.startswith("24 of 24 sessions that count were active before their exposure")
    assert "for 67% of their interactions: an effect of 10 % shows as about 3.3 %" in rate_before
    assert "diluted (" in warned(run, "session.duration", "program")


def test_units_recorded_before_their_exposure(
    play: Callable[..., None], run: Callable[..., Ran]
) -> None:
    """59 of 60: the flag is evaluated after the work."""
    play("""
        client = client_of(**ours)
        for number in range(60):
            if number == 0:
                expose(client, "u-0")
            with ld.session(f"u-{number}", client=client) as s:
                s.conversion(3.0)
        for number in range(60):
            expose(client, f"u-{number}")
        client.close()
    """)

    assert "60 of 60 units with events were exposed to an experiment, 1 before" in warned(
        run, "business.conversion", "exposure"
    )


def test_few_units_exposed(play: Callable[..., None], run: Callable[..., Ran]) -> None:
    """1 of 60."""
    play("""
        client = client_of(**ours)
        expose(client, "u-0")
        for number in range(60):
            with ld.session(f"u-{number}", client=client) as s:
                s.conversion(3.0)
        sessions = ld.stats().sessions["session"]
        assert (sessions.ended, sessions.exposed, sessions.diluted) == (60, 1, 0)
        client.close()
    """)

    assert "1 of 60 units with events were exposed" in warned(
        run, "business.conversion", "exposure"
    )


def test_seconds_under_a_metric_in_milliseconds(
    play: Callable[..., None], run: Callable[..., Ran], api: MetricsAPI
) -> None:
    """The program says it itself, and what arrived says it."""
    api.create(Metric("answer.latency", unit="milliseconds", success_criteria="LowerThanBaseline"))
    play("""
        latency = ld.Metric("answer.latency", unit="milliseconds", success_criteria="LowerThanBaseline")
        client = client_of(**ours)
        for number in range(12):
            expose(client, f"u-{number}")
            with ld.session(f"u-{number}", client=client) as s:
                s.record(latency, 0.25 + number)
        assert ("magnitude", "answer.latency") in ld.stats().warnings
        client.close()
    """)

    assert "are they seconds?" in warned(run, "answer.latency", "magnitude")
    assert "magnitude (" in warned(run, "answer.latency", "program")


def test_a_limit_that_bites(
    play: Callable[..., None], run: Callable[..., Ran], api: MetricsAPI
) -> None:
    """What was dropped leaves no trace at LaunchDarkly: the program itself has to tell."""
    api.create(
        Metric("cart.seen", unit="items", success_criteria="HigherThanBaseline", limit="2/s")
    )
    play("""
        seen = ld.Metric("cart.seen", unit="items", success_criteria="HigherThanBaseline", limit="2/s")
        @ld.track_task("look", context="u-1", record={seen: lambda result: 1})
        def look(): ...
        client = client_of(**ours)
        expose(client, "u-1")
        for _ in range(40):
            look()
        assert ld.stats().values.discarded["rate_limited"] > 30
        client.close()
    """)

    assert "rate limited (" in warned(run, "cart.seen", "program")


def test_exposures_that_another_client_makes(
    play: Callable[..., None], run: Callable[..., Ran]
) -> None:
    """A browser, or another service, exposes whom a session folds for."""
    play("""
        client, other = client_of(**ours), client_of()
        for number in range(6):
            with ld.session(f"u-{number}", client=client) as s:
                s.conversion(50)
                expose(other, f"u-{number}")
                s.conversion(10)
        other.flush()
        other.close()
        client.close()
    """)

    told = warned(run, "business.conversion", "exposed elsewhere")

    assert told.startswith("6 of 6 units were exposed by PythonClient, where ldinstrument does not")


def test_keys_that_are_exposed_under_one_name_and_measured_under_another(
    play: Callable[..., None], run: Callable[..., Ran]
) -> None:
    """People log in after the flag was evaluated; who was exposed under both keys is no fault."""
    play("""
        client = client_of(**ours)
        for number in range(6):
            with ld.session(f"anonymous-{number}", client=client) as s:
                expose(client, f"anonymous-{number}")
                s.interaction()
                s.identify(f"u-{number}")
                if number == 0:
                    expose(client, "u-0")
                s.interaction()
        client.close()
    """)

    assert warned(run, "session.duration", "identity") == (
        "5 sessions have one key that was exposed and another one that was not"
    )
