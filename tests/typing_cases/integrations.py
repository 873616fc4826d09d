"""The boundaries, as type checkers see them; this module is checked and never run."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from flask import Flask
from ldclient import Context

from ldinstrument.integrations import asgi, flask, wsgi
from ldinstrument.integrations.aws_lambda import lambda_handler


def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """Answer nothing."""
    return []


served = wsgi.SessionMiddleware(
    application,
    context=lambda environ: environ.get("REMOTE_USER"),
    store="sqlite:///sessions.db",
    ignore=["/static/*"],
    metrics=("successes",),
    request_metrics=True,
    cookie=False,
)
wsgi.SessionMiddleware(application, nmae="shop")  # type: ignore[call-arg]
wsgi.SessionMiddleware(application, cookie=7)  # type: ignore[arg-type]

api = FastAPI()
api.add_middleware(asgi.SessionMiddleware, context=lambda scope: "ada", flush_timeout=1.0)

shop: Flask = flask.instrument(Flask("shop"), lambda request: request.headers["X-User"], name="web")
unit: Context | None = flask.request_context()


@lambda_handler(context="ada", metrics=("unfinished",), request_metrics=True)
def handler(event: dict[str, Any], context: object) -> int:
    """Answer a number."""
    return 1


answer: int = handler({}, None)
