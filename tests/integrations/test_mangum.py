"""FastAPI in AWS Lambda through Mangum, which runs the lifespan in every invocation."""

from __future__ import annotations

from typing import Any

import fastapi
import pytest

import ldinstrument as ld
from ldinstrument import testing
from ldinstrument.integrations.asgi import SessionMiddleware
from ldinstrument.integrations.aws_lambda import lambda_handler

mangum = pytest.importorskip("mangum")

EVENT: dict[str, Any] = {
    "resource": "/items",
    "path": "/items",
    "httpMethod": "GET",
    "headers": {"Host": "shop"},
    "multiValueHeaders": {},
    "queryStringParameters": None,
    "body": None,
    "isBase64Encoded": False,
    "multiValueQueryStringParameters": None,
    "pathParameters": None,
    "stageVariables": None,
    "requestContext": {
        "resourcePath": "/items",
        "httpMethod": "GET",
        "identity": {"sourceIp": "192.0.2.1"},
        "stage": "test",
    },
}


class LambdaContext:
    aws_request_id = "request-1"
    function_name = function_version = memory_limit_in_mb = "1"
    invoked_function_arn = "arn:1"

    def get_remaining_time_in_millis(self) -> int:
        return 10_000


# Mangum asks for an event loop where there may be none; Python 3.12 says so.
@pytest.mark.filterwarnings("ignore:There is no current event loop:DeprecationWarning")
def test_an_invocation_outlives_the_lifespan_inside_it() -> None:
    """The invocation has its duration and its rate, and so has the request, each time."""
    app = fastapi.FastAPI()

    @app.get("/items")
    async def items() -> str:
        ld.track_conversion(2.0)
        return "ok"

    app.add_middleware(SessionMiddleware, context=lambda scope: "ada")
    handler = lambda_handler(context="ada")(mangum.Mangum(app))

    with testing.recording() as events:
        for _ in range(2):
            assert handler(EVENT, LambdaContext())["statusCode"] == 200

    for key in ("invocation.duration", "invocation.success_rate", "request.duration"):
        assert [event.data["endReason"] for event in events.of(key)] == ["ended"] * 2, key
    assert len(events.of("business.conversion")) == 2
