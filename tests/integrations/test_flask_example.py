"""The Flask example, started as its command does and clicked through in a real Chromium; then
numbers are compared.
"""

from __future__ import annotations

import importlib
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "flask_app"
FLAG = "assistant-prompt"
CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)


@pytest.fixture(scope="module")
def place() -> Iterator[Any]:
    """The shop, the local LaunchDarkly and the local OpenAI, as `run.py` starts them."""
    pytest.importorskip("gunicorn")
    sys.path.insert(0, str(EXAMPLE))
    try:
        run = importlib.import_module("run")
        with run.serving(workers=2) as running:
            yield running
    finally:
        sys.path.remove(str(EXAMPLE))
        for name in ("run", "fake_openai"):
            sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A headless Chromium from this machine; a missing one skips at home and fails in CI."""
    if CHROMIUM is None:
        reason = "no Chromium here: apt-get install chromium"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=CHROMIUM, args=["--disable-gpu", "--disable-quic"]
        )
        yield browser
        browser.close()


@dataclass
class Seen:
    """What one visitor did and saw."""

    friendly: bool
    requests: int
    thumb: str
    bought: float
    tokens: list[int] = field(default_factory=list)


PLANS = [
    ("up", ["tent"]),
    ("down", []),
    ("up", ["lamp", "stove"]),
    ("down", ["bag"]),
    ("up", []),
    ("down", ["tent", "tent"]),
]
PRICES = {"tent": 189.0, "bag": 129.0, "lamp": 39.0, "stove": 59.0}


def visit(browser: Any, url: str, thumb: str, products: list[str]) -> Seen:
    """Come in, ask, judge the answer, buy, leave; count every request that the shop gets."""
    context = browser.new_context()
    page = context.new_page()
    page.set_default_timeout(90_000)
    asked: list[str] = []
    page.on(
        "request",
        lambda request: asked.append(request.url) if request.url.startswith(url) else None,
    )
    page.goto(url)
    page.fill("#question", "What do I need in the rain?")
    page.click("#ask button")
    page.wait_for_selector("#answer[data-done=yes]")
    answer = page.inner_text("#answer")
    page.click(f"[data-thumb={thumb}]")
    page.wait_for_selector("#thanks:has-text('Thank you')")
    for product in products:
        with page.expect_navigation():
            page.click(f"button[value={product}]")
    if products:
        assert f"${sum(PRICES[product] for product in products):.2f}" in page.inner_text("#cart")
        page.click("#checkout")
        page.wait_for_selector("#bought")
    page.click("#leave")
    page.wait_for_selector("#bye")
    context.close()
    assert "tent" in answer
    return Seen("lovely" in answer, len(asked), thumb, sum(PRICES[product] for product in products))


@pytest.fixture(scope="module")
def seen(place: Any, chromium: Any) -> list[Seen]:
    """All the visits of this module, made, and everything that they said in LaunchDarkly's
    hands.
    """
    done = [visit(chromium, place.url, thumb, products) for thumb, products in PLANS]
    launchdarkly = place.launchdarkly
    buyers = sum(bool(products) for _, products in PLANS)
    # Two workers post by themselves: that one kind of event is complete says nothing of the others.
    for key in (
        "session.duration",
        "session.success_rate",
        "assistant.answer.tokens.total",
        "assistant.answer.duration",
        "user.satisfaction",
    ):
        launchdarkly.wait_for(
            lambda key=key: len(launchdarkly.custom_events(key)) >= len(PLANS), 60
        )
    launchdarkly.wait_for(
        lambda: len(launchdarkly.custom_events("business.conversion")) >= buyers, 60
    )
    requests = sum(visitor.requests for visitor in done)
    launchdarkly.wait_for(lambda: total(launchdarkly, "session.interactions") >= requests, 60)
    return done


def test_what_visitors_did_is_what_launchdarkly_reads(place: Any, seen: list[Seen]) -> None:
    """Visits, requests, thumbs, sales and tokens, split by the prompt that each visitor got: exact
    to the last one.
    """
    launchdarkly = place.launchdarkly
    by_prompt = exposures(launchdarkly)
    assert Counter(visitor.friendly for visitor in seen) == Counter(
        value == "friendly" for value in by_prompt.values()
    )
    for prompt in ("brief", "friendly"):
        mine = [visitor for visitor in seen if visitor.friendly == (prompt == "friendly")]

        def values(key: str, prompt: str = prompt) -> list[float]:
            """By visitor: a page that a busy machine brings in long after the leave is a visit of
            its own.
            """
            found: dict[str, float] = {}
            for event in launchdarkly.custom_events(key):
                who = event["context"]["key"]
                if by_prompt[who] == prompt:
                    found[who] = found.get(who, 0.0) + event["metricValue"]
            return sorted(found.values())

        assert sorted(float(visitor.requests) for visitor in mine) == values("session.interactions")
        assert sorted(visitor.bought for visitor in mine if visitor.bought) == values(
            "business.conversion"
        )
        assert sorted({"up": 100.0, "down": 0.0}[visitor.thumb] for visitor in mine) == values(
            "user.satisfaction"
        )
        assert (
            len(mine) == len(values("session.duration")) == len(values("assistant.answer.duration"))
        )
    assert {100.0} == {
        event["metricValue"] for event in launchdarkly.custom_events("session.success_rate")
    }
    assert Counter(usage["total_tokens"] for usage in place.openai.served) == Counter(
        int(event["metricValue"])
        for event in launchdarkly.custom_events("assistant.answer.tokens.total")
    )


def total(launchdarkly: Any, key: str) -> float:
    return float(sum(event["metricValue"] for event in launchdarkly.custom_events(key)))


def exposures(launchdarkly: Any) -> dict[str, str]:
    """The prompt that each visitor was exposed to."""
    found = {
        event["context"]["key"]: event["value"]
        for event in launchdarkly.events("feature")
        if event["key"] == FLAG
    }
    assert len(found) == len(PLANS)
    return found


def test_the_read_out_by_variation_adds_up(place: Any, seen: list[Seen]) -> None:
    """The local LaunchDarkly's own join of exposures and events says the same as the events do:
    what a visit held before its exposure is dated before it, and counts for no variation.
    """
    launchdarkly = place.launchdarkly
    exposed: dict[str, int] = {}
    for event in launchdarkly.events("feature"):  # in the order of arrival, not of their dates
        if event["key"] == FLAG:
            key, date = event["context"]["key"], event["creationDate"]
            exposed[key] = min(date, exposed.get(key, date))
    readout = launchdarkly.readout()
    for key in ("session.interactions", "business.conversion", "user.satisfaction"):
        rows = [row for row in readout.rows if row.metric == key and row.flag == FLAG]
        after = [
            event
            for event in launchdarkly.custom_events(key)
            if event["creationDate"] >= exposed[event["context"]["key"]]
        ]
        assert len(after) == sum(row.events for row in rows) >= len(rows)


def test_the_one_command_starts_everything(tmp_path: Path) -> None:
    """`python run.py`: it says where the shop and LaunchDarkly are, both answer, and Ctrl-C ends it
    without a word.
    """
    pytest.importorskip("gunicorn")
    process = subprocess.Popen(
        [sys.executable, str(EXAMPLE / "run.py"), "--port", "0", "--launchdarkly-port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        addresses = [process.stdout.readline().rpartition(" ")[2].strip() for _ in range(2)]
        assert "Outdoor shop" in httpx.get(addresses[0], timeout=60, trust_env=False).text
        assert (
            200
            == httpx.get(
                f"{addresses[1]}/sdk/latest-all",
                headers={"Authorization": "sdk"},
                timeout=60,
                trust_env=False,
            ).status_code
        )
        process.send_signal(signal.SIGINT)
        _, complaints = process.communicate(timeout=60)
    finally:
        process.kill()
    assert 0 == process.returncode
    assert "" == complaints


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_the_shop_and_everything_that_it_started(
    sent: signal.Signals, free_port: Any
) -> None:
    """Neither gunicorn nor the local LaunchDarkly stays on its port."""
    ports = [free_port(), free_port()]
    command = ["--port", str(ports[0]), "--launchdarkly-port", str(ports[1]), "--workers", "1"]
    with subprocess.Popen(
        [sys.executable, str(EXAMPLE / "run.py"), *command], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert str(ports[0]) in process.stdout.readline()
        process.send_signal(sent)
        assert process.wait(60) == 0

    for port in ports:
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"http://127.0.0.1:{port}", timeout=5, trust_env=False)
