"""AWS's own Runtime Interface Emulator: our extension on it, and our small API beside it, question
for question.

The emulator does not freeze, so it proves the protocol; test_aws_lambda_frozen.py proves that
nothing is lost. It comes inside the `aws-sam-cli` wheel and is fetched once, into the virtual
environment's cache.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "examples" / "lambda"))

from local_lambda.intake import Intake
from local_lambda.sandbox import Function

pytest.importorskip("awslambdaric")
if shutil.which("openssl") is None:
    pytest.skip("the openssl command makes the certificate", allow_module_level=True)

EXAMPLE = Path(__file__).parents[2] / "examples" / "lambda"
CACHE = Path(sys.prefix) / ".cache" / "aws-lambda-rie"
MACHINES = {"x86_64": "x86_64", "aarch64": "arm64", "arm64": "arm64"}


@pytest.fixture(name="emulator", scope="session")
def _emulator() -> Path:
    """The emulator's binary, from the cache or out of the wheel."""
    machine = MACHINES.get(platform.machine())
    if sys.platform != "linux" or machine is None:
        pytest.skip(f"AWS builds the emulator for Linux on {', '.join(MACHINES)}")
    binary = CACHE / f"aws-lambda-rie-{machine}"
    if not binary.exists():
        _fetch(binary)
    return binary


def _fetch(binary: Path) -> None:
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        dir=CACHE
    ) as folder:  # another process may be fetching it, too
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "-q",
            "--no-deps",
            "--dest",
            folder,
            "aws-sam-cli",
        ]
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=90)
        except (subprocess.SubprocessError, OSError) as error:
            pytest.skip(f"aws-sam-cli could not be downloaded: {type(error).__name__}")
        (wheel,) = Path(folder).glob("*.whl")
        unpacked = Path(folder) / binary.name
        with zipfile.ZipFile(wheel) as archive:
            unpacked.write_bytes(archive.read(f"samcli/local/rapid/{binary.name}"))
        unpacked.chmod(0o755)
        unpacked.replace(binary)


class Emulated:
    """A function on the emulator."""

    def __init__(
        self,
        ports: tuple[int, int],
        handler: str,
        folder: Path,
        environment: Mapping[str, str],
        log: Path,
        binary: Path,
    ):
        self.port, api = ports
        self.log = log
        command = [
            str(binary),
            "--runtime-interface-emulator-address",
            f"127.0.0.1:{self.port}",
            "--runtime-api-address",
            f"127.0.0.1:{api}",
            "--log-level",
            "debug",
            sys.executable,
            "-m",
            "awslambdaric",
            handler,
        ]
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("SSL_CERT", "AWS_"))
        }
        variables = {
            **kept,
            "AWS_LAMBDA_FUNCTION_NAME": "local",
            "AWS_LAMBDA_FUNCTION_TIMEOUT": "30",
            "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
            "no_proxy": "127.0.0.1",
            **environment,
        }
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                command,
                cwd=folder,
                env=variables,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self._wait_until_up()

    def _wait_until_up(self) -> None:
        until = time.monotonic() + 100
        while time.monotonic() < until:
            with (
                contextlib.suppress(OSError),
                socket.create_connection(("127.0.0.1", self.port), 1),
            ):
                return
            time.sleep(0.02)
        raise AssertionError(self.log.read_text())

    def invoke(self, event: Any) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=100)
        connection.request("POST", "/2015-03-31/functions/function/invocations", json.dumps(event))
        answer = connection.getresponse()
        value = json.loads(answer.read())
        connection.close()
        return value

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


Emulate = Callable[..., contextlib.AbstractContextManager[Emulated]]


@pytest.fixture(name="emulated")
def _emulated(emulator: Path, free_port: Callable[[], int]) -> Emulate:
    """`with emulated(handler, folder, environment, log)`: a function that is gone when the block
    ends.
    """

    @contextlib.contextmanager
    def emulated(*settings: Any) -> Iterator[Emulated]:
        function = Emulated((free_port(), free_port()), *settings, emulator)
        try:
            yield function
        finally:
            function.close()

    return emulated


PROBE = """
import http.client, json, os, threading

def call(method, path, headers, body=None):
    connection = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
    connection.request(method, "/2020-01-01/extension/" + path, body, headers)
    answer = connection.getresponse()
    content = json.loads(answer.read() or b"{}")
    identifier = answer.headers.get("Lambda-Extension-Identifier")
    return answer.status, content.get("errorType", ""), identifier, content

def register(name, body):
    headers = {"Lambda-Extension-Name": name} if name is not None else {}
    return call("POST", "register", headers, body)

INVOKE = '{"events": ["INVOKE"]}'
seen, said = [], {}
first = register("probe", INVOKE)
FUNCTION = {"functionName", "functionVersion", "handler"}
said["registered"] = [first[0], bool(first[2]), sorted(set(first[3]) & FUNCTION)]
said["duplicate"] = register("probe", INVOKE)[:2]
said["no name"] = register(None, INVOKE)[:2]
said["empty name"] = register("", INVOKE)[:2]
said["shutdown"] = register("other", '{"events": ["SHUTDOWN"]}')[:2]
said["unknown event"] = register("other", '{"events": ["SLEEP"]}')[:2]
said["no json"] = register("other", "INVOKE")[:2]
said["next without identifier"] = call("GET", "event/next", {})[:2]
said["next of nobody"] = call("GET", "event/next", {
    "Lambda-Extension-Identifier": "11111111-2222-3333-4444-555555555555"})[:2]
def loop():
    while True:
        seen.append(call("GET", "event/next", {"Lambda-Extension-Identifier": first[2]})[3])
threading.Thread(target=loop, daemon=True).start()

def handler(event, context):
    for _ in range(2000):
        if seen and seen[-1]["requestId"] == context.aws_request_id:
            break
        threading.Event().wait(0.01)
    said["late"] = register("late", INVOKE)[:2]
    fields = {"eventType", "deadlineMs", "requestId", "invokedFunctionArn"}
    said["event"] = sorted(set(seen[-1]) & fields)
    said["is ours"] = seen[-1]["requestId"] == context.aws_request_id
    deadline = context._epoch_deadline_time_in_ms
    said["deadline agrees"] = abs(seen[-1]["deadlineMs"] - deadline) < 1000
    return said
"""


def test_our_sandbox_is_as_strict_as_aws_s_emulator(emulated: Emulate, tmp_path: Path) -> None:
    """The same questions to both, good and bad: the same statuses and error types."""
    (tmp_path / "probe.py").write_text(PROBE)

    with Function("probe.handler", tmp_path, timeout=60.0, init_timeout=100.0) as ours:
        here = ours.invoke({}).response
    with emulated("probe.handler", tmp_path, {}, tmp_path / "rie.log") as theirs:
        there = theirs.invoke({})

    assert here == there
    assert there["registered"] == [200, True, ["functionName", "functionVersion", "handler"]]
    assert there["late"] == [403, "Extension.RegistrationClosed"]
    assert there["shutdown"] == [403, "Extension.InvalidEventType"]
    assert there["is ours"] is True


@pytest.mark.parametrize("mode", ["before_response", "after_response"])
def test_the_example_runs_on_the_emulator(mode: str, emulated: Emulate, tmp_path: Path) -> None:
    """Its extension registers and takes part in every invocation; all events arrive, each once."""
    with Intake(tmp_path) as intake:
        environment = {
            "DELIVER": mode,
            "LAUNCHDARKLY_SDK_KEY": "sdk-local",
            "LAUNCHDARKLY_EVENTS_URI": intake.uri,
            "EVENTS_CA_FILE": str(intake.certificate),
        }
        with emulated("handler.handler", EXAMPLE, environment, tmp_path / "rie.log") as function:
            answers = [
                function.invoke({"userId": f"user-{number}", "items": 2}) for number in range(20)
            ]
        log = (tmp_path / "rie.log").read_text()

        assert answers == [{"statusCode": 200, "total": 9.0}] * 20
        assert len(intake.events("invocation.duration")) == 20
        assert len(intake.events("business.conversion")) == 20
        assert intake.duplicates == 0
        assert ("Internal agent ldinstrument" in log) is (mode == "after_response")
        assert "is not possible here" not in log


def test_a_fallback_on_the_emulator_says_why(emulated: Emulate, tmp_path: Path) -> None:
    """Decorated in the middle of an invocation, AWS's own refusal is in the one line of log."""
    (tmp_path / "app.py").write_text(
        """
from ldinstrument.integrations.aws_lambda import lambda_handler
def handler(event, context):
    decorate = lambda_handler(context="u", deliver="after_response")
    return decorate(lambda event, context: "served")(event, context)
"""
    )
    with emulated("app.handler", tmp_path, {}, tmp_path / "rie.log") as function:
        answers = [function.invoke({}) for _ in range(2)]

    assert answers == ["served", "served"]
    log = (tmp_path / "rie.log").read_text()
    assert (
        log.count(
            "deliver='after_response' is not possible here: Lambda refused the extension (403 "
        )
        == 1
    )
    assert "Extension.RegistrationClosed" in log
