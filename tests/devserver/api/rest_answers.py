"""Bodies of metrics and flags that REST takes, and answers that refuse one."""

from __future__ import annotations

BASE = "/api/v2/metrics/default"


NUMERIC = {
    "key": "m",
    "kind": "custom",
    "eventKey": "m",
    "isNumeric": True,
    "unit": "ms",
    "successCriteria": "LowerThanBaseline",
}


CLICK = {
    "key": "c",
    "kind": "click",
    "selector": "#buy",
    "urls": [{"kind": "exact", "url": "https://x.test/"}],
}


PAGE = {"key": "p", "kind": "pageview", "urls": [{"kind": "regex", "pattern": "^/a"}]}


def refused(answer, status=400, code="invalid_request"):
    assert answer.status_code == status, answer.text
    assert set(answer.json()) == {"code", "message", "id"}
    assert answer.json()["code"] == code
    return answer.json()["message"]


def keys(answer):
    assert answer.status_code == 200, answer.text
    return [item["key"] for item in answer.json()["items"]]


def patch(http, key, *operations, **headers):
    return http("PATCH", f"{BASE}/{key}", json=list(operations), headers=headers)


def replace(path, value):
    return {"op": "replace", "path": path, "value": value}


COLOURS = {
    "key": "colour",
    "name": "Colour of the button",
    "tags": ["web", "button"],
    "variations": [
        {"value": "red", "name": "Red"},
        {"value": "green", "description": "as grass"},
        {"value": "blue"},
    ],
    "defaults": {"onVariation": 1, "offVariation": 2},
    "clientSideAvailability": {"usingEnvironmentId": True, "usingMobileKey": False},
}
