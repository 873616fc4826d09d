"""Flag delivery to browsers and phones: what they get, what they do not, and when they hear."""

from __future__ import annotations

import base64
import json

import pytest
import requests
from ldclient import Context

from ldinstrument.devserver import experiment_flag, simple_flag

USER = {"kind": "user", "key": "u", "plan": "pro"}
ENCODED = base64.urlsafe_b64encode(json.dumps(USER).encode()).decode().rstrip("=")
BROWSER = f"/sdk/evalx/env/contexts/{ENCODED}"
PHONE = f"/msdk/evalx/contexts/{ENCODED}"


def test_client_side_evaluations_are_those_of_launchdarkly(ld, http):
    """Any form of base64, and REPORT; what is no context is refused."""
    context = "eyJraW5kIjoidXNlciIsImtleSI6InUtMSJ9"
    answer = http("GET", f"/sdk/evalx/env/contexts/{context}").json()
    assert answer["new-prompt"]["value"] in ("short", "long")
    assert answer["new-prompt"]["trackEvents"] is True
    assert answer["new-prompt"]["reason"]["inExperiment"] is True
    body = {"kind": "user", "key": "u-1"}
    assert http("REPORT", "/sdk/evalx/env/context", json=body).json() == answer
    assert http("GET", f"/msdk/evalx/contexts/{context}").json() == answer
    for wrong in ("x", "bnVsbA", "e30", "W10=", "%20"):
        assert http("GET", f"/sdk/evalx/env/contexts/{wrong}").status_code == 400
        assert http("GET", f"/eval/env/{wrong}").status_code == 400
    assert http("GET", "/sdk/goals/env").json() == []
    ld.sdk_keys = {"sdk-key"}
    assert http("GET", f"/sdk/evalx/env/contexts/{context}").status_code == 401


@pytest.fixture(name="flags")
def _flags(ld):
    """Flags for nobody, for phones, for browsers; a dependent one, and one that is debugged."""
    for key, available in (
        ("server", {}),
        ("phone", {"usingMobileKey": True}),
        ("browser", {"usingEnvironmentId": True}),
    ):
        ld.set_flag({**simple_flag(key), "clientSideAvailability": available})
    ld.set_flag({**simple_flag("older"), "clientSideAvailability": None, "clientSide": True})
    needs = [{"key": "browser", "variation": 0}]
    ld.set_flag({**simple_flag("dependent"), "prerequisites": needs})
    ld.set_flag({**simple_flag("debugged"), "debugEventsUntilDate": 4102444800000})


def test_each_client_gets_the_flags_that_are_available_to_it(http, flags):
    """By environment id or by mobile key."""
    everywhere = {"new-prompt", "dependent", "debugged", "older"}
    assert set(http("GET", BROWSER).json()) == everywhere | {"browser"}
    assert set(http("GET", PHONE).json()) == everywhere | {"phone"}


def test_evaluations_carry_prerequisites_and_the_end_of_debugging(http, sdk, ld, flags):
    """As the server SDK writes them for a page."""
    client = sdk()
    state = client.all_flags_state(Context.from_dict(USER)).to_json_dict()["$flagsState"]
    found = http("GET", BROWSER).json()
    assert found["dependent"]["prerequisites"] == state["dependent"]["prerequisites"] == ["browser"]
    assert found["debugged"]["debugEventsUntilDate"] == 4102444800000


def test_reasons_are_sent_when_asked_for_and_in_experiments(http, flags):
    """An exposure needs its reason."""
    plain, asked = http("GET", BROWSER).json(), http("GET", f"{BROWSER}?withReasons=true").json()
    assert "reason" not in plain["browser"]
    assert asked["browser"]["reason"] == {"kind": "FALLTHROUGH"}
    assert plain["new-prompt"]["reason"]["inExperiment"] is True


def test_browsers_may_report_their_context(http):
    """`useReport` of the JavaScript SDKs needs REPORT in the answer to the preflight."""
    asked = {
        "Origin": "http://shop.test",
        "Access-Control-Request-Method": "REPORT",
        "Access-Control-Request-Headers": "content-type",
    }
    preflight = http("OPTIONS", "/sdk/evalx/env/context", headers=asked)
    assert preflight.status_code == 200
    assert "REPORT" in preflight.headers["Access-Control-Allow-Methods"]
    answer = http("REPORT", "/sdk/evalx/env/context", json=USER, headers={"Origin": "http://s"})
    assert answer.headers["Access-Control-Allow-Origin"] == "*"


@pytest.mark.parametrize("path", ["/ping/env", "/mping"])
def test_pings_tell_to_poll_at_first_and_on_a_change(ld, path):
    """One at the start, one for each change."""
    headers = {"Authorization": "mob-key"}
    with requests.get(ld.url + path, headers=headers, stream=True, timeout=30) as stream:
        lines = (line for line in stream.iter_lines(decode_unicode=True) if "ping" in line)
        assert next(lines) == "event: ping"
        ld.set_flag(simple_flag("new"))
        assert next(lines) == "event: ping"


def events(text: str) -> list[tuple[str, dict]]:
    """The complete server-sent events of a text."""
    found = []
    for block in text.split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.split("\n") if ": " in line)
        if lines:
            found.append((lines["event"], json.loads(lines["data"])))
    return found


def test_the_second_data_system_polls_evaluations(http, ld, flags):
    """Everything the context gets at first, nothing while that is so."""
    path = f"/sdk/poll/eval/{ENCODED}?auth=env"
    messages = [(m["event"], m["data"]) for m in http("GET", path).json()["events"]]
    assert messages[0][1]["payloads"][0]["intentCode"] == "xfer-full"
    objects = {data["key"]: data for name, data in messages if name == "put-object"}
    assert {data["kind"] for data in objects.values()} == {"flag-eval"}
    assert "server" not in objects
    assert objects["browser"]["object"]["value"] is False
    state = messages[-1][1]["state"]
    again = http("GET", f"{path}&basis={state}").json()["events"]
    assert [m["data"]["payloads"][0]["intentCode"] for m in again] == ["none"]
    for method in ("POST", "REPORT"):
        assert http(method, "/sdk/poll/eval?auth=env", json=USER).json()["events"] == [
            {"event": name, "data": data} for name, data in messages
        ]
    other = base64.urlsafe_b64encode(b'{"kind":"user","key":"other"}').decode().rstrip("=")
    moved = http("GET", f"/sdk/poll/eval/{other}?auth=env&basis={state}").json()["events"]
    assert moved[0]["data"]["payloads"][0]["intentCode"] == "xfer-full"


def test_the_second_data_system_streams_changes(ld):
    """First everything, then what changed."""
    url = f"{ld.url}/sdk/stream/eval/{ENCODED}?auth=env"
    with requests.get(url, stream=True, timeout=30) as stream:
        text = ""
        for chunk in stream.iter_content(None, decode_unicode=True):
            text += chunk
            if text.count("payload-transferred") == 1:
                ld.set_flag(experiment_flag("new-prompt", ["x", "y"]))
            if text.count("payload-transferred") == 2:
                break
    found = [data for name, data in events(text) if name == "put-object"]
    assert found[-1]["key"] == "new-prompt"
    assert found[-1]["object"]["value"] in ("x", "y")
    assert found[-1]["version"] == 2
