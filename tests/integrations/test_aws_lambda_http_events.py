"""HTTP requests as events of AWS Lambda: both payload formats, and what is none."""

from __future__ import annotations

from collections import UserDict
from typing import Any

import pytest

from ldinstrument.integrations.aws_lambda.http_events import attributes_of, header_of

FORMAT_2 = {
    "version": "2.0",
    "headers": {"host": "shop.example", "x-forwarded-proto": "https"},
    "requestContext": {
        "domainName": "abc.lambda-url.eu-west-1.on.aws",
        "http": {"method": "GET", "path": "/items", "protocol": "HTTP/1.1", "userAgent": "curl/8"},
    },
}
FORMAT_1 = {
    "httpMethod": "POST",
    "path": "/items",
    "headers": {"Host": "shop.example", "User-Agent": "curl/8", "X-Forwarded-Proto": "http"},
    "requestContext": {"protocol": "HTTP/1.1"},
}
LOAD_BALANCER = {
    "httpMethod": "GET",
    "path": "/items",
    "headers": {"host": "shop.example"},
    "requestContext": {"elb": {"targetGroupArn": "arn"}},
}


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (FORMAT_2, ("GET", "shop.example", "/items", "https", "HTTP/1.1", "curl/8")),
        (FORMAT_1, ("POST", "shop.example", "/items", "http", "HTTP/1.1", "curl/8")),
        (LOAD_BALANCER, ("GET", "shop.example", "/items", "https", None, None)),
    ],
    ids=["format 2.0", "format 1.0", "load balancer"],
)
def test_a_request_has_the_same_attributes_in_any_format(event: Any, expected: Any) -> None:
    """Method, host, path, scheme, protocol and user agent, whatever case its headers are in."""
    names = ("method", "host", "path", "scheme", "proto", "userAgent")
    assert attributes_of(event) == dict(zip(names, expected, strict=True))


def test_a_function_url_without_a_host_header_has_its_domain() -> None:
    """The event names it."""
    event = {**FORMAT_2, "headers": None}
    assert attributes_of(event)["host"] == "abc.lambda-url.eu-west-1.on.aws"


@pytest.mark.parametrize(
    "event",
    [
        None,
        [],
        "GET",
        {},
        {"Records": []},
        {"httpMethod": 5, "headers": 7, "requestContext": "x"},
        {"requestContext": {"http": {"method": None}}},
    ],
)
def test_any_other_event_is_no_request(event: Any) -> None:
    """A queue's message has neither attributes nor headers."""
    assert attributes_of(event) == {}
    assert header_of(event, "host") is None


def test_a_header_is_found_in_any_case() -> None:
    """By its lower-case name; one that is missing is None."""
    assert header_of(FORMAT_1, "user-agent") == header_of(
        {"headers": {"USER-AGENT": "curl/8"}}, "user-agent"
    )
    assert header_of(FORMAT_1, "baggage") is None
    assert header_of(UserDict({"headers": UserDict({"Host": "a"})}), "host") == "a"
