"""The seed's workflow as the docs show it; and no event of the examples that plan had not
declared.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any

import pytest

from ldinstrument.devserver import LocalLaunchDarkly, experiment_flag
from ldinstrument.rest import MetricsAPI

ROOT = Path(__file__).resolve().parents[2]


def environment(url: str) -> dict[str, str]:
    path = os.pathsep.join([str(ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])
    return {
        **os.environ,
        "LDINSTRUMENT_URL": url,
        "no_proxy": "127.0.0.1",
        "PYTHONPATH": path.rstrip(os.pathsep),
    }


def planned(ld: LocalLaunchDarkly, target: str, cwd: Path) -> dict[str, Any]:
    """`ldinstrument apply TARGET --json`, in a process of its own."""
    command = [
        sys.executable,
        "-c",
        "import sys; from ldinstrument.cli import main; sys.exit(main())",
    ]
    ran = subprocess.run(
        [*command, "apply", target, "--json"],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=environment(ld.url),
        timeout=90,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


def test_the_seeds_workflow_runs_as_documented(ld: LocalLaunchDarkly) -> None:
    """create, track, flush, get, rename, list, delete: the very program of
    docs/metrics-as-code.md.
    """
    page = (ROOT / "docs" / "metrics-as-code.md").read_text(encoding="utf-8")
    match = re.search(r"<!-- test: seed workflow -->\n```python\n(.*?)```", page, re.DOTALL)
    assert match is not None
    ran = subprocess.run(
        [
            sys.executable,
            "-W",
            "error::UserWarning",
            "-c",
            match[1].replace("timeout=10", "timeout=80"),
        ],
        capture_output=True,
        text=True,
        env={**environment(ld.url), "LAUNCHDARKLY_SDK_KEY": "sdk-docs"},
        timeout=150,
    )
    assert ran.returncode == 0, ran.stderr
    last_seen, listed = ran.stdout.splitlines()
    assert abs(int(last_seen) / 1000 - time.time()) < 600
    assert (
        listed
        == f"quality.accuracy Accuracy of answers {ld.url}/projects/my-project/metrics/quality.accuracy/details"
    )
    (event,) = ld.custom_events("quality.accuracy")
    assert (event["metricValue"], event["data"]["model"]) == (92.5, "small")
    with MetricsAPI("my-project", token="api-x", base_uri=ld.url) as api:
        assert api.find("quality.accuracy") is None


def test_the_github_action_of_the_docs_is_valid() -> None:
    """Every command in it exists, and its exit codes are those of the table."""
    page = (ROOT / "docs" / "metrics-as-code.md").read_text(encoding="utf-8")
    action = re.search(r"```yaml\n(.*?)```", page, re.DOTALL)
    assert action is not None
    assert "ldinstrument plan myshop || test $? -ge 3" in action[1]
    assert "ldinstrument apply myshop || test $? -eq 4" in action[1]
    for code, news in ((0, True), (1, False), (2, False), (3, True), (4, True)):
        ran = subprocess.run(["/bin/sh", "-c", f"(exit {code}) || test $? -ge 3"], check=False)
        assert (ran.returncode == 0) is news


def undeclared(ld: LocalLaunchDarkly, found: dict[str, Any]) -> set[str]:
    keys = {change["key"] for change in found["changes"]}
    with MetricsAPI(token="api-x", base_uri=ld.url) as api:
        events = {metric.event_key for metric in api.list() if metric.key in keys}
    return {event["key"] for event in ld.custom_events()} - events


def test_no_event_of_the_flask_example_is_undeclared() -> None:
    """Real requests through the shop under its own server: each event key is one that plan found in
    the code.
    """
    folder = ROOT / "examples" / "flask_app"
    flag = experiment_flag("assistant-prompt", ["brief", "friendly"])
    with LocalLaunchDarkly(flags=[flag]) as ld:
        found = planned(ld, "app.py", folder)
        assert found["undeclared"] == []
        sys.path.insert(0, str(folder))
        try:
            from fake_openai import FakeOpenAI
        finally:
            sys.path.remove(str(folder))
        program = (
            "import sys; from app import create_app; from werkzeug.serving import make_server\n"
            "server = make_server('127.0.0.1', 0, create_app(), threaded=True)\n"
            "print(server.port, flush=True); import threading\n"
            "threading.Thread(target=server.serve_forever, daemon=True).start(); sys.stdin.read()\n"
            "import ldclient, ldinstrument; print(ldinstrument.flush(timeout=80)); "
            "ldclient.get().close()\n"
        )
        with FakeOpenAI() as openai:
            shop = subprocess.Popen(
                [sys.executable, "-c", program],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                cwd=folder,
                env={**environment(ld.url), "OPENAI_BASE_URL": openai.url},
            )
            try:
                assert shop.stdout is not None
                _visit(f"http://127.0.0.1:{int(shop.stdout.readline())}")
                told = shop.communicate(timeout=100)
            finally:
                shop.kill()
                shop.wait()
        seen = {event["key"] for event in ld.custom_events()}
        assert {"shop.checkout.duration", "business.conversion", "user.satisfaction"} <= seen, told
        assert any(key.endswith(".interactions") for key in seen), (
            f"no session was reported: {told}"
        )
        assert {key for key in undeclared(ld, found) if not key.startswith("$ld:")} == set()


def _visit(url: str) -> None:
    browser = urllib.request.build_opener(
        urllib.request.HTTPCookieProcessor(CookieJar()), urllib.request.ProxyHandler({})
    )
    forms = [
        ("/", None),
        ("/ask", {"question": "Which tent?"}),
        ("/feedback", {"thumb": "up"}),
        ("/feedback", {"thumb": "down"}),
        ("/cart", {"product": "tent"}),
        ("/checkout", {}),
        ("/nowhere", None),
        ("/leave", {}),
    ]
    for path, form in forms:
        body = None if form is None else urllib.parse.urlencode(form).encode()
        try:
            with browser.open(url + path, body, timeout=30) as answer:
                answer.read()
        except urllib.error.HTTPError as error:
            assert path in ("/nowhere", "/leave")
            assert error.code == 404


def test_no_event_of_the_lambda_example_is_undeclared() -> None:
    """Invocations of the handler under AWS's runtime client, one of them failing."""
    pytest.importorskip("awslambdaric")
    folder = ROOT / "examples" / "lambda"
    with LocalLaunchDarkly() as ld:
        found = planned(ld, "handler.py", folder)
        assert found["undeclared"] == []
        _invoke(folder, ld)
        ld.wait_for(lambda: len(ld.custom_events("invocation.duration")) >= 3, timeout=30)
        seen = {event["key"] for event in ld.custom_events()}
        assert {"invocation.duration", "quote.price.success_rate", "business.conversion"} <= seen
        assert undeclared(ld, found) == set()


def _invoke(folder: Path, ld: LocalLaunchDarkly) -> None:
    """A Runtime API with three invocations, for the real runtime client."""
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    waiting = [
        {"userId": "u-1", "items": 2},
        {"userId": "u-2", "items": 0},
        {"userId": "u-3", "items": 5},
    ]
    done = threading.Event()
    answered: list[str] = []

    class Runtime(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if not waiting:
                done.set()
                time.sleep(30)
            body = json.dumps(waiting.pop(0)).encode()
            self.send_response(200)
            for name, value in (
                ("Lambda-Runtime-Aws-Request-Id", f"r-{len(waiting)}"),
                ("Content-Type", "application/json"),
                ("Lambda-Runtime-Deadline-Ms", str(int(time.time() * 1000) + 30_000)),
                ("Lambda-Runtime-Invoked-Function-Arn", "arn:aws:lambda:eu-central-1:1:function:f"),
                ("Content-Length", str(len(body))),
            ):
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            answered.append(self.path)
            self.send_response(202)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Runtime)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    environ = {
        **environment(ld.url),
        "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{server.server_port}",
        "AWS_LAMBDA_FUNCTION_NAME": "f",
        "AWS_LAMBDA_FUNCTION_VERSION": "1",
        "DELIVER": "before_response",
        "LAUNCHDARKLY_SDK_KEY": "sdk-lambda",
    }
    function = subprocess.Popen(
        [sys.executable, "-m", "awslambdaric", "handler.handler"],
        cwd=folder,
        env=environ,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert done.wait(60)
    finally:
        function.kill()
        function.wait()
        server.shutdown()
        server.server_close()
    assert sum(path.endswith("/response") for path in answered) == 2
    assert sum(path.endswith("/error") for path in answered) == 1
