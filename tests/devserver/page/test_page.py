"""The page in a real browser: what an experimenter sees and does, by mouse, keyboard and telephone.

With SCREENSHOTS=docs/images the pictures of the README are made anew.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
from pathlib import Path
from types import ModuleType

import pytest
from ldclient import Context

from ldinstrument.cli.store_visits import StoreVisits
from ldinstrument.devserver import LocalLaunchDarkly, experiment_flag
from ldinstrument.stores import open_store

from ..traffic import EVIL, traffic, won

CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
SATISFACTION = {
    "key": "user.satisfaction",
    "eventKey": "user.satisfaction",
    "unit": "percent",
    "successCriteria": "HigherThanBaseline",
    "eventDefault": {"disabled": True},
}


@pytest.fixture(name="browser", scope="module")
def _browser():
    playwright = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed")
    with playwright.sync_playwright() as browsers:
        browser = browsers.chromium.launch(
            executable_path=CHROMIUM, args=["--disable-gpu", "--disable-quic"]
        )
        yield browser
        browser.close()


@pytest.fixture(name="open_page")
def _open_page(browser):
    """`open_page(width=390, color_scheme="dark", ...)`; complaints of the page fail the test."""
    contexts, complaints = [], []

    def open_page(width: int = 1200, **options: object):
        viewport = {"width": width, "height": 800}
        contexts.append(browser.new_context(viewport=viewport, **options))
        page = contexts[-1].new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.fixture(name="won_experiment")
def _won_experiment(http, metric):
    """An experiment with a winner, an undecided metric, and one that says nothing."""
    metric(key="answer.duration", eventKey="answer.duration", eventDefault={"disabled": True})
    metric(**SATISFACTION)
    metric(key="per-request", eventKey="answer.duration", analysisUnits=["request"])
    http("POST", "/bulk", json=won("new-prompt"))


def test_a_person_sees_numbers_arrive_and_nothing_is_executed(ld, http, metric, open_page):
    """Markup in every place that a stranger can write to is shown as text."""
    metric(description=EVIL, unit=EVIL, name=EVIL, eventDefault={"disabled": True})
    asked: list[str] = []
    page = open_page()
    page.on("request", lambda request: asked.append(request.url))
    page.goto(ld.url)
    assert "No experiment has an exposure yet" in page.locator("#experiments").inner_text()
    headers = {"X-LaunchDarkly-Payload-ID": EVIL.encode()}
    assert http("POST", "/bulk", json=traffic(), headers=headers).status_code == 202
    page.wait_for_selector("#experiments .metric")
    shown = page.locator("#experiments").inner_text()
    assert "session.duration" in shown
    assert "1234" in shown
    page.locator("#health > summary").click()
    for section in ("health", "experiments", "contexts", "events", "metrics"):
        assert "<img" in page.locator(f"#{section}").inner_text(), section
    assert page.title() == "Local LaunchDarkly"
    assert page.locator("img, section script").count() == 0
    assert all(url.startswith((ld.url, "data:")) for url in asked)


def test_the_experiment_comes_first_with_its_verdicts(ld, won_experiment, open_page):
    """In words, in a chart and in the text of that chart."""
    page = open_page()
    page.goto(ld.url)
    better = page.get_by_role("region", name="answer.duration")
    assert "better" in better.inner_text()
    chart = better.get_by_role("img").first
    assert re.search(
        "long against the control: \N{MINUS SIGN}1[0-9]", chart.get_attribute("aria-label")
    )
    undecided = page.get_by_role("region", name="user.satisfaction").inner_text()
    assert "undecided" in undecided
    assert "300 of 300" in undecided
    assert "split as allocated" in page.locator("#experiments").inner_text()
    missing = page.locator(".missing")
    missing.locator("summary").click()
    assert "nobody was exposed as request" in missing.inner_text()
    assert "ldinstrument doctor per-request" in missing.inner_text()
    better.locator("summary").click()
    assert better.locator("svg.development").is_visible()
    assert "1,000 ms" in page.locator("#sessions").inner_text().replace("1000 ms", "1,000 ms")


def test_a_broken_split_is_said_before_the_numbers(ld, http, metric, open_page):
    """Nobody should read differences of lost units."""
    metric(key="answer.duration", eventKey="answer.duration", eventDefault={"disabled": True})
    lost = [
        event for event in won("new-prompt") if event["kind"] == "custom" or event["variation"] == 0
    ]
    http("POST", "/bulk", json=lost)
    page = open_page()
    page.goto(ld.url)
    assert "the split is not the allocated one" in page.locator("#experiments .bad").inner_text()
    assert "not comparable" in page.get_by_role("region", name="answer.duration").inner_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_telephone_shows_all_of_it_without_scrolling_sideways(
    ld, won_experiment, open_page, scheme
):
    """In both colour schemes."""
    page = open_page(390, color_scheme=scheme)
    page.goto(ld.url)
    width, height = page.evaluate(
        "[document.documentElement.scrollWidth, document.documentElement.scrollHeight]"
    )
    assert width == 390
    assert height < 16_000
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (min(map(int, re.findall(r"\d+", ground))) > 200) == (scheme == "light")


def test_unfolded_it_is_no_wider_than_the_telephone(ld, metric, won_experiment, open_page):
    """Long keys without a result, the forms of flags, and the findings."""
    long = "assistant.answer.time_to_the_very_first_token_of_the_second_attempt"
    metric(key=long, eventKey=long)
    page = open_page(390)
    page.goto(ld.url)
    for summary in page.locator("summary").all():
        if summary.is_visible():
            summary.click()
    assert page.locator(".missing tbody tr", has_text=long).is_visible()
    wide = page.evaluate(
        "[...document.querySelectorAll('main *')].filter(part => part.getBoundingClientRect().right"
        " > innerWidth + 1).map(part => part.outerHTML.slice(0, 160))"
    )
    assert wide == []
    assert page.evaluate("document.documentElement.scrollWidth") == 390


def test_pictures_of_the_page(ld, won_experiment, open_page, tmp_path):
    """The pictures of the README, made by this test."""
    folder = Path(__file__).parents[3] / (os.environ.get("SCREENSHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    for name, width, scheme in (
        ("page", 1100, "light"),
        ("page-dark", 1100, "dark"),
        ("page-phone", 390, "light"),
    ):
        page = open_page(width, color_scheme=scheme)
        page.goto(ld.url)
        page.get_by_role("region", name="answer.duration").locator("summary").click()
        page.screenshot(path=folder / f"{name}.png")
        assert (folder / f"{name}.png").stat().st_size > 10_000


def test_without_script_it_is_read_searched_and_changed(ld, won_experiment, open_page):
    """Forms and links are enough."""
    page = open_page(java_script_enabled=False)
    page.goto(ld.url)
    assert "better" in page.get_by_role("region", name="answer.duration").inner_text()
    page.locator("#events input[type=search]").fill("visitor-599")
    with page.expect_navigation():  # a click returns before the new document is read
        page.locator("#events button").click()
    assert set(page.locator("#feed tbody td:nth-child(4)").all_inner_texts()) == {
        "user:visitor-599"
    }
    page.locator("#new-flag > summary").click()
    page.locator("#new-flag input[name=key]").fill("made-here")
    with page.expect_navigation():
        page.locator("#new-flag button").click()
    assert page.locator("#f-made-here").is_visible()
    assert ld.database.document("flag", "", "made-here")["variations"] == ["short", "long"]


def test_a_flag_edited_in_the_page_reaches_a_connected_sdk(ld, sdk, open_page):
    """A new value, and the default once it is deleted."""
    client = sdk()
    page = open_page()
    page.goto(ld.url)
    page.locator("#f-new-prompt > summary").click()
    form = page.locator("#f-new-prompt form").first
    form.locator("input[name=variations]").fill("short, long, 3")
    form.locator("input[value=serve]").check()
    form.locator("input[name=serve]").fill("2")
    with page.expect_navigation():
        form.get_by_role("button").click()
    ld.wait_for(lambda: client.variation("new-prompt", Context.create("u"), None) == 3)
    page.locator("#f-new-prompt > summary").click()
    page.get_by_role("button", name="Delete").click()
    ld.wait_for(lambda: client.variation("new-prompt", Context.create("u"), "gone") == "gone")


def test_an_edit_keeps_what_the_form_does_not_show(ld, http):
    """Rules, salt and availability."""
    rule = {"id": "r", "variation": 1, "clauses": []}
    available = {"usingMobileKey": False, "usingEnvironmentId": False}
    flag = {**experiment_flag("f", ["a", "b"]), "rules": [rule]}
    ld.set_flag({**flag, "clientSideAvailability": available, "salt": "mine"})
    form = {"key": "f", "variations": "a, b", "mode": "experiment", "weights": "3, 1", "on": "on"}
    answer = http("POST", "/dev/forms/flag", data=form, allow_redirects=False)
    assert answer.status_code == 303
    changed = ld.database.document("flag", "", "f")
    assert (changed["rules"], changed["clientSideAvailability"]) == ([rule], available)
    assert (changed["salt"], changed["version"]) == ("mine", 2)
    weights = [each["weight"] for each in changed["fallthrough"]["rollout"]["variations"]]
    assert weights == [75_000, 25_000]


@pytest.mark.parametrize(
    "form",
    [
        {},
        {"key": "f", "variations": "a", "mode": "experiment"},
        {"key": "f", "variations": "a, b", "mode": "experiment", "weights": "x"},
        {"key": "f", "variations": "a, b", "mode": "experiment", "weights": "1, 2, 3"},
        {"key": "f", "variations": "a, b", "serve": "x"},
    ],
)
def test_a_form_that_makes_no_flag_is_refused(ld, http, form):
    """And nothing is kept."""
    assert http("POST", "/dev/forms/flag", data=form).status_code == 400
    assert ld.database.document("flag", "", "f") is None


def test_faults_are_switched_by_keyboard(ld, http, open_page):
    """Tab to a switch, Enter, and the next POST is answered 503; Enter again, and it is 202."""
    page = open_page()
    page.goto(ld.url)
    switch = page.get_by_role("switch", name="events are answered 503")
    switch.focus()
    with page.expect_navigation():
        page.keyboard.press("Enter")
    page.wait_for_selector("#faults [aria-checked=true]")
    assert http("POST", "/bulk", json=[]).status_code == 503
    page.get_by_role("switch", name="events are answered 503").focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#faults:not(:has([aria-checked=true]))")
    assert http("POST", "/bulk", json=[]).status_code == 202


def test_every_fault_has_a_switch_that_works(ld, http):
    """On and off again."""
    for switch in ld_switches(http):
        for do in ("on", "off"):
            answer = http("POST", "/dev/forms/fault", data={"name": switch, "do": do})
            assert answer.status_code == 200
            assert len(ld.faults.active()) == 0 or do == "on"
    assert http("POST", "/dev/forms/fault", data={"name": "none"}).status_code == 404
    assert ld.faults.active() == []


def ld_switches(http) -> list[str]:
    return re.findall(r'name="name" value="([^"]+)"', http("GET", "/").text)


def test_the_keyboard_gets_everywhere(ld, won_experiment, open_page):
    """The first stop leads past the navigation; details open by Enter."""
    page = open_page()
    page.goto(ld.url)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("location.hash") == "#experiments"
    page.locator(".missing summary").focus()
    page.keyboard.press("Enter")
    assert page.locator(".missing table").is_visible()


def test_what_is_open_stays_open_and_nobody_is_interrupted(ld, http, won_experiment, open_page):
    """New events replace what is shown, but neither an open fold nor a field in use."""
    page = open_page()
    page.goto(ld.url)
    page.locator(".missing summary").click()
    page.locator("#new-flag > summary").click()
    page.locator("#new-flag input[name=key]").fill("half-typed")
    http("POST", "/bulk", json=[{**traffic()[2], "key": "brand.new"}])
    page.wait_for_selector("#feed td:text('brand.new')")
    assert page.locator(".missing table").is_visible()
    assert page.locator("#new-flag input[name=key]").input_value() == "half-typed"


def test_events_are_searched_while_typing(ld, won_experiment, open_page):
    """Contexts too."""
    page = open_page()
    page.goto(ld.url)
    page.locator("#events input[type=search]").press_sequentially("visitor-77")
    rows = page.locator("#feed tbody tr")
    ld.wait_for(lambda: rows.count() == 4 and "visitor-77" in rows.first.inner_text())
    page.locator("#contexts input[type=search]").press_sequentially("visitor-42")
    ld.wait_for(lambda: page.locator("#units tbody tr").count() == 11)


def test_iterations_are_started_and_stopped_in_the_page(ld, won_experiment, open_page):
    """By the two buttons of an experiment."""
    page = open_page()
    page.goto(ld.url)
    page.get_by_role("button", name="New iteration").click()
    page.wait_for_selector("text=iteration 2")
    page.get_by_role("button", name="Stop").click()
    page.wait_for_selector("text=stopped")
    assert [it.running for it in ld.reader.iterations.of("new-prompt")] == [False, False]


def _builders() -> ModuleType:
    """Return the builders of the stores' tests, which are in no package."""
    path = Path(__file__).parents[2] / "stores" / "builders.py"
    spec = importlib.util.spec_from_file_location("page_builders", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


BUILDERS = _builders()


def store_address(kind: str, request: pytest.FixtureRequest, tmp_path) -> str:
    if kind == "sqlite":
        return f"sqlite:///{tmp_path}/visits.sqlite"
    return f"{request.getfixturevalue('redis_server').url}?timeout=10&prefix=page-{tmp_path.name}"


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
def test_open_visits_are_ended_in_the_page(kind, open_page, request, tmp_path, monkeypatch):
    """They are those of a real store, and their events arrive here."""
    address = store_address(kind, request, tmp_path)
    with open_store(address, sweep=False) as store, LocalLaunchDarkly() as ld:
        monkeypatch.setenv("LDINSTRUMENT_URL", ld.url)
        ld.visits = StoreVisits(address)
        for visitor in ("v-1", "v-2"):
            store.merge(visitor, BUILDERS.delta(visitor, context={"user": visitor}))
        page = open_page()
        page.goto(ld.url)
        assert "2 in the session store" in page.locator("#visits").inner_text()
        page.get_by_role("button", name="End them now").click()
        page.wait_for_selector("text=No visit is open")
        ld.wait_for(lambda: ld.count(key="session.interactions") == 2)
        page.close()  # before the server, which its stream would miss


def test_a_metric_that_says_nothing_shows_what_the_doctor_finds(
    ld, http, won_experiment, open_page
):
    """The failed check, what a program has warned about, and what to run."""
    warning = [["no_context", "per-request", 3]]
    told = {"id": "p1", "pid": 7, "warnings": warning}
    assert http("POST", "/ldinstrument/program", json=told).status_code == 202
    page = open_page()
    page.goto(ld.url)
    page.locator("#missing-new-prompt > summary").click()
    row = page.locator("#missing-new-prompt tr", has_text="per-request").inner_text()
    assert "analysis unit: 0 of 600 events carry request" in row
    assert "said by a program: no context (3 times) (an event needs a context)" in row
    assert "To do: session(context), or identify()" in row
    assert "ldinstrument doctor per-request" in row


def test_the_reset_forgets_and_the_flags_are_those_of_the_start(ld, http, open_page):
    """Behind a second click."""
    http("POST", "/bulk", json=traffic())
    page = open_page()
    page.goto(ld.url)
    page.locator("#health > summary").click()
    page.locator("#health summary:text('Reset')").click()
    page.get_by_role("button", name="Forget all").click()
    page.wait_for_selector("#feed .none")
    page.wait_for_selector("#f-new-prompt", state="attached")
    assert ld.events() == []


def test_forms_of_other_origins_change_nothing(ld, http):
    """A site that a developer visits cannot post to the server."""
    for path in ("flag", "flag/delete", "iteration", "fault", "visits", "reset"):
        for headers in ({"Origin": "https://evil.test"}, {"Sec-Fetch-Site": "cross-site"}):
            answer = http("POST", f"/dev/forms/{path}", data={"key": "new-prompt"}, headers=headers)
            assert answer.status_code == 403
    assert "new-prompt" in ld.flags.all()


def test_the_page_names_its_own_sources_only(http):
    """It works without a network and runs nobody's script."""
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


def test_a_link_to_a_metrics_details_leads_to_it_in_the_page(ld, http, metric, open_page):
    """The links that plan and doctor print are those of LaunchDarkly's own pages."""
    metric(key="a.b")
    page = open_page()
    page.goto(f"{ld.url}/projects/default/metrics/a.b/details")
    assert page.evaluate("location.hash") == "#m-a.b"
    assert page.locator("[id='m-a.b']").is_visible()


def test_a_metric_without_a_unit_is_shown(ld, http, metric):
    """A conversion has none."""
    metric(key="paid", eventKey="paid", isNumeric=False, unit=None, successCriteria=None)
    page = http("GET", "/")
    assert page.status_code == 200
    assert 'id="m-paid"' in page.text
