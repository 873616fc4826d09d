"""Deploying a function from the text of its module, for the tests that freeze it.

The sandbox itself is examples/lambda/local_lambda: it stops the process group when the runtime and
every extension asked for the next event, and kills it in the end without a thaw, as Lambda does.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "examples" / "lambda"))

from local_lambda.intake import Intake
from local_lambda.sandbox import Function
from local_lambda.state import Invocation

pytest.importorskip("awslambdaric")
if shutil.which("openssl") is None:
    pytest.skip("the openssl command makes the certificate", allow_module_level=True)

EXAMPLE = Path(__file__).parents[2] / "examples" / "lambda"
MODES = ("before_response", "after_response")

SDK = """
import json, os, sys, threading, time, http.client
import ldclient
from ldclient.config import Config, HTTPConfig
HTTP = HTTPConfig(connect_timeout=1, read_timeout=2, ca_certs=os.environ["EVENTS_CA_FILE"])
"""
OURS = f"""{SDK}
import ldinstrument as ld
from ldinstrument.integrations.aws_lambda import lambda_handler
ldclient.set_config(ld.launchdarkly_config(events_only=True, http=HTTP))
ldclient.get()
MODE = os.environ.get("DELIVER", "after_response")
"""
PLAIN = f"""{SDK}
URI = os.environ["LAUNCHDARKLY_EVENTS_URI"]
ldclient.set_config(Config("sdk-key", base_uri=URI, stream_uri=URI, events_uri=URI, use_ldd=True,
                           diagnostic_opt_out=True, http=HTTP))
client = ldclient.get()
"""
RAW_EXTENSION = """
def call(method, path, headers, body=None):
    connection = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
    connection.request(method, "/2020-01-01/extension/" + path, body, headers)
    answer = connection.getresponse()
    answer.read()
    return answer
def register(name):
    answer = call("POST", "register", {"Lambda-Extension-Name": name}, '{"events": ["INVOKE"]}')
    return answer.headers["Lambda-Extension-Identifier"]
def ask(identifier):
    return call("GET", "event/next", {"Lambda-Extension-Identifier": identifier})
def ask_for_ever(identifier, pause=0.0):
    while ask(identifier).status == 200:
        time.sleep(pause)
"""

Deploy = Callable[..., Function]
SLOW_MACHINE = {"timeout": 60.0, "init_timeout": 100.0}


@pytest.fixture(name="intake")
def _intake(tmp_path: Path) -> Iterator[Intake]:
    with Intake(tmp_path) as intake:
        yield intake


@pytest.fixture(name="far")
def _far(tmp_path: Path) -> Iterator[Intake]:
    """As far away that a response which does not wait for it comes first, also on a busy
    machine.
    """
    (tmp_path / "far").mkdir()
    with Intake(tmp_path / "far", round_trip=0.4) as intake:
        yield intake


def addressed(intake: Intake) -> dict[str, str]:
    """The environment of a function that sends to *intake*."""
    return {"LAUNCHDARKLY_EVENTS_URI": intake.uri, "EVENTS_CA_FILE": str(intake.certificate)}


@pytest.fixture(name="deploy")
def _deploy(tmp_path: Path, intake: Intake) -> Iterator[Deploy]:
    """Deploys a function from the text of its module; its handler is `handler`."""
    deployed = []

    def deploy(module: str, mode: str = "after_response", **settings: Any) -> Function:
        (tmp_path / "app.py").write_text(module)
        environment = {
            "DELIVER": mode,
            "LAUNCHDARKLY_SDK_KEY": "sdk-local",
            **addressed(intake),
            **settings.pop("environment", {}),
        }
        # Generous: only what is about time-outs has short ones.
        function = Function(
            "app.handler", tmp_path, environment=environment, **{**SLOW_MACHINE, **settings}
        )
        deployed.append(function)
        return function

    yield deploy
    for function in deployed:
        function.close()


def invoke(function: Function, *events: Any) -> list[Invocation]:
    """One invocation per event, each to its frozen end."""
    done = []
    for event in events:
        done.append(function.invoke(event))
        function.finish()
    return done


def arrivals(intake: Intake, key: str = "invocation.duration") -> dict[str, float]:
    """When the events of each request were in the server's hands, by request id."""
    return {event["data"]["sessionId"]: event["received"] for event in intake.events(key)}


def before_the_freeze(intake: Intake, invocations: list[Invocation]) -> list[bool]:
    """For each invocation, whether its events were in the server's hands when its sandbox froze."""
    arrived = arrivals(intake)
    return [
        invocation.frozen is not None
        and arrived.get(invocation.request_id, float("inf")) <= invocation.frozen
        for invocation in invocations
    ]


def answered_first(intake: Intake, invocations: list[Invocation]) -> int:
    """How many callers had their answer before the events had arrived: none where the response
    waits for them.
    """
    arrived = arrivals(intake)
    return sum(
        invocation.responded is not None and invocation.responded < arrived[invocation.request_id]
        for invocation in invocations
    )
