"""The live page: what it shows, what it never executes, and whom it does not answer."""

from __future__ import annotations

import re
import shutil

import pytest
import requests

from ldinstrument.devserver import LocalLaunchDarkly, experiment_flag, simple_flag

CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
EVIL = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>'\"&"


def traffic() -> list[dict]:
    """Two exposed units, one of whom converts, and everything an attacker can name."""
    events = []
    for unit, variation in (("a", 0), ("b", 1)):
        context = {"kind": "user", "key": unit}
        reason = {"kind": "FALLTHROUGH", "inExperiment": True}
        events.append(
            {
                "kind": "feature",
                "creationDate": 1,
                "key": "new-prompt",
                "variation": variation,
                "value": EVIL if variation else "plain",
                "reason": reason,
                "context": context,
            }
        )
    events.append(
        {
            "kind": "custom",
            "creationDate": 2,
            "key": "session.duration",
            "metricValue": 1234,
            "data": {"note": EVIL},
            "context": {"kind": "user", "key": "b"},
        }
    )
    events.append({"kind": EVIL, "key": EVIL, "context": {"kind": EVIL, "key": EVIL}})
    events.append(
        {
            "kind": "custom",
            "key": EVIL,
            "context": {"kind": "multi", EVIL: {"key": EVIL}},
            "data": EVIL,
        }
    )
    events.append(
        {
            "kind": "custom",
            "key": {"a": 1},
            "context": {"kind": "multi", "user": None},
            "metricValue": [EVIL],
        }
    )
    events.append({"kind": "custom", "context": 7, "reason": 3, "features": None})
    return events


@pytest.fixture(name="page")
def _page():
    playwright = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed")
    with playwright.sync_playwright() as browsers:
        browser = browsers.chromium.launch(
            executable_path=CHROMIUM, args=["--disable-gpu", "--disable-quic"]
        )
        page = browser.new_page()
        yield page
        browser.close()


def test_a_person_sees_numbers_arrive_and_nothing_is_executed(ld, http, metric, page):
    metric(description=EVIL, unit=EVIL, name=EVIL, eventDefault={"disabled": True})
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(ld.url)
    page.wait_for_selector("#live.on")
    assert "Nothing yet" in page.locator("#readout").inner_text()
    headers = {"X-LaunchDarkly-Payload-ID": EVIL.encode()}
    assert http("POST", "/bulk", json=traffic(), headers=headers).status_code == 202
    page.wait_for_selector("#readout td")
    shown = page.locator("#readout").inner_text()
    assert "session.duration by new-prompt" in shown
    assert "1,234" in shown
    for section in ("totals", "events", "readout", "payloads", "metrics"):
        assert "<img" in page.locator(f"#{section}").inner_text()
    assert page.title() == "Local LaunchDarkly"
    assert page.locator("img, section script").count() == 0
    assert complaints == []
    assert all(url.startswith((ld.url, "data:")) for url in asked)
    http("POST", "/bulk", json=traffic()[2:3])
    page.wait_for_selector("#counters b:text-is('8')")


def test_the_reset_button_asks_and_forgets(ld, http, page):
    http("POST", "/bulk", json=traffic())
    page.goto(ld.url)
    page.wait_for_selector("#events td")
    page.on("dialog", lambda dialog: dialog.accept())
    page.click("#reset")
    page.wait_for_selector("#events .none")
    assert ld.events() == []


def test_the_page_names_its_own_sources_only(http):
    answer = http("GET", "/")
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert "unsafe" not in answer.headers["Content-Security-Policy"]
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    for path in re.findall(r'(?:href|src)="(/[^"]+)"', answer.text):
        assert http("GET", path).status_code == 200
    assert not re.search(
        r"https?://",
        answer.text + http("GET", "/dev/page.css").text + http("GET", "/dev/page.js").text,
    )


@pytest.mark.parametrize(
    "host", ["evil.test", "evil.test:80", "127.0.0.1.evil.test", "localhost.evil.test:8030", ""]
)
def test_a_rebound_name_gets_nothing(ld, http, host):
    """A web page whose name was pointed at 127.0.0.1 must not read what developers send here."""
    for path in ("/", "/dev/events", "/api/v2/metrics/default", "/sdk/latest-all"):
        assert http("GET", path, headers={"Host": host}).status_code in (400, 403)
    for host in (f"localhost:{ld.port}", f"127.0.0.1:{ld.port}", "LOCALHOST", f"[::1]:{ld.port}"):
        assert http("GET", "/dev/events", headers={"Host": host}).status_code == 200


def test_a_foreign_page_can_neither_read_nor_reset(ld, http):
    """The page's own routes answer no other origin, not even to a form that needs no preflight."""
    http("POST", "/bulk", json=traffic())
    for origin in (
        "https://evil.test",
        "null",
        f"http://localhost:{ld.port}",
        f"http://127.0.0.1:{ld.port + 1}",
    ):
        answer = http("POST", "/dev/reset", headers={"Origin": origin})
        assert answer.status_code == 403
        assert (
            "Access-Control-Allow-Origin"
            not in http("GET", "/dev/events", headers={"Origin": origin}).headers
        )
    assert ld.events()
    assert http("POST", "/dev/reset", headers={"Origin": ld.url}).status_code == 204
    assert ld.events() == []


def test_other_names_are_allowed_on_purpose():
    with LocalLaunchDarkly(allowed_hosts={"proxy.test"}) as ld:
        assert (
            requests.get(ld.url, headers={"Host": "proxy.test:443"}, timeout=5).status_code == 200
        )
        assert requests.get(ld.url, timeout=5).status_code == 403


def test_events_can_be_followed_by_their_id(http):
    for i in range(5):
        http(
            "POST",
            "/bulk",
            json=[{"kind": "custom", "key": f"k{i}", "context": {"kind": "user", "key": "u"}}],
        )
    first = http("GET", "/dev/events?since=0&limit=3").json()
    assert [item["event"]["key"] for item in first["items"]] == ["k0", "k1", "k2"]
    rest = http("GET", f"/dev/events?since={first['last']}").json()
    assert [item["event"]["key"] for item in rest["items"]] == ["k3", "k4"]
    assert http("GET", f"/dev/events?since={rest['last']}").json() == {
        "items": [],
        "last": rest["last"],
    }
    assert [
        item["event"]["key"] for item in http("GET", "/dev/events?limit=2").json()["items"]
    ] == ["k3", "k4"]
    assert [
        item["event"]["key"] for item in http("GET", "/dev/events?since=0&key=k1").json()["items"]
    ] == ["k1"]
    assert http("GET", "/dev/events?limit=0").status_code == 400


def test_the_read_out_as_json_is_the_read_out(ld, http, metric):
    metric(eventDefault={"disabled": True})
    http("POST", "/bulk", json=traffic())
    said = http("GET", "/dev/readout").json()
    row = ld.readout().row("session.duration", "new-prompt", 1)
    (found,) = [line for line in said["rows"] if line["variation"] == 1]
    assert (
        (found["mean"], found["units"], found["events"])
        == (row.mean, row.units, row.events)
        == (1234.0, 1, 1)
    )
    assert found["value"] == EVIL
    assert http("GET", "/dev/readout?project=other").json()["rows"] == []
    assert [finding.ok for finding in ld.health() if finding.subject == "session.duration"] == [
        True
    ] * 4
    assert [
        f["ok"] for f in http("GET", "/dev/health").json() if f["subject"] == "session.duration"
    ] == [True] * 4


def test_flags_can_be_changed_from_another_process(ld, http):
    path = "/dev/flags/some-flag"
    assert http("PUT", path, json=simple_flag("some-flag", [1, 2])).json()["version"] == 1
    assert http("PUT", path, json=experiment_flag("some-flag", [1, 2])).json()["version"] == 2
    assert {flag["key"] for flag in http("GET", "/dev/flags").json()} == {"new-prompt", "some-flag"}
    for body in (
        {},
        [],
        {"key": "other", "variations": []},
        {"variations": 3},
        {"variations": [], "version": "x"},
    ):
        assert http("PUT", path, json=body).status_code == 400
    assert http("PUT", path, data=b"{").status_code == 400
    assert http("DELETE", path).status_code == 204
    assert http("DELETE", path).status_code == 404
    assert "some-flag" not in http("GET", "/sdk/latest-all").json()["flags"]
