"""The HTTP face of a `Sandbox`: the Runtime API and the Extensions API, on a free loopback port."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

from local_lambda.state import Ended, Invocation, Refused, Sandbox

RUNTIME = "/2018-06-01/runtime/"
EXTENSION = "/2020-01-01/extension/"
ARN = "arn:aws:lambda:eu-central-1:000000000000:function:"


class Api:
    """Serves one `Sandbox` until `close()`; `address` is what goes into
    `AWS_LAMBDA_RUNTIME_API`.
    """

    def __init__(self, sandbox: Sandbox, function_name: str = "local"):
        handler = type("Handler", (_Handler,), {"sandbox": sandbox, "function_name": function_name})
        self._server = _Server(("127.0.0.1", 0), handler)
        self.address = f"127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A killed sandbox leaves connections in the middle of an answer: nothing to report."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    sandbox: ClassVar[Sandbox]
    function_name: ClassVar[str]

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(self._post)

    def _answer(self, route: Any) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            route(body)
        except Refused as refused:
            self._send(refused.status, {"errorMessage": str(refused), "errorType": refused.kind})
        except Ended:
            self.close_connection = True

    def _get(self, body: bytes) -> None:
        if self.path == RUNTIME + "invocation/next":
            invocation = self.sandbox.runtime_next()
            self._send(200, invocation.event, self._runtime_headers(invocation))
        elif self.path == RUNTIME + "restore/next":
            self.sandbox.restore_next()
            self._send(200, {})
        elif self.path == EXTENSION + "event/next":
            invocation = self.sandbox.extension_next(
                self.headers.get("Lambda-Extension-Identifier")
            )
            self._send(200, self._extension_event(invocation))
        else:
            raise Refused(404, "NotFound", self.path)

    def _post(self, body: bytes) -> None:
        parts = self.path.split("/")
        if self.path == EXTENSION + "register":
            extension = self.sandbox.register(self.headers.get("Lambda-Extension-Name"), body)
            self._send(200, self._function(), {"Lambda-Extension-Identifier": extension.identifier})
        elif self.path in (EXTENSION + "init/error", EXTENSION + "exit/error"):
            kind = self.headers.get("Lambda-Extension-Function-Error-Type") or "Extension.Error"
            self.sandbox.extension_failed(self.headers.get("Lambda-Extension-Identifier"), kind)
            self._send(202, {"status": "OK"})
        elif self.path == RUNTIME + "init/error":
            self.sandbox.init_failed(body)
            self._send(202, {"status": "OK"})
        elif self.path.startswith(RUNTIME + "invocation/") and parts[-1] in ("response", "error"):
            self.sandbox.respond(parts[-2], body, error=parts[-1] == "error")
            self._send(202, {"status": "OK"})
        else:
            raise Refused(404, "NotFound", self.path)

    def _function(self) -> dict[str, str]:
        return {
            "functionName": self.function_name,
            "functionVersion": "$LATEST",
            "handler": "handler",
        }

    def _runtime_headers(self, invocation: Invocation) -> dict[str, str]:
        return {
            "Lambda-Runtime-Aws-Request-Id": invocation.request_id,
            "Lambda-Runtime-Deadline-Ms": str(invocation.deadline_ms),
            "Lambda-Runtime-Invoked-Function-Arn": ARN + self.function_name,
            "Lambda-Runtime-Trace-Id": "Root=1-00000000-000000000000000000000000;Sampled=0",
        }

    def _extension_event(self, invocation: Invocation) -> dict[str, Any]:
        return {
            "eventType": "INVOKE",
            "deadlineMs": invocation.deadline_ms,
            "requestId": invocation.request_id,
            "invokedFunctionArn": ARN + self.function_name,
            "tracing": {
                "type": "X-Amzn-Trace-Id",
                "value": "Root=1-00000000-000000000000000000000000;Sampled=0",
            },
        }

    def _send(self, status: int, value: Any, headers: dict[str, str] | None = None) -> None:
        payload = json.dumps(value).encode()
        self.send_response(status)
        for name, text in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, text)
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet: the sandbox records what it refuses."""
