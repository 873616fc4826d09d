"""A Lambda function on this machine: cold starts, invocations, time-outs, and a freeze between
invocations.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from local_lambda.api import Api
from local_lambda.state import Ended, Invocation, Sandbox

_HOST_SETTINGS = (
    "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "AWS_CA_BUNDLE",
    "http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY",
)  # fmt: skip


class Function:
    """A deployed function with one sandbox at a time, made at the first invocation and again after
    each failure.

    Args:
        handler: `module.function`, as in a template.
        folder: where the module is (`LAMBDA_TASK_ROOT`).
        timeout: the function's time-out in seconds.
        init_timeout: what the initialisation may take; Lambda gives 10 s.
        environment: the function's environment variables.
        freezing: False never stops the process (to see what a freeze changes).
        command: what runs as the runtime; AWS's runtime client unless told otherwise.
    """

    def __init__(
        self,
        handler: str,
        folder: Path | str,
        *,
        timeout: float = 10.0,
        init_timeout: float = 10.0,
        environment: Mapping[str, str] | None = None,
        freezing: bool = True,
        command: Sequence[str] | None = None,
    ):
        self.name = "local"
        self.timeout = timeout
        self.init_timeout = init_timeout
        self.freezing = freezing
        self.sandbox: Sandbox | None = None
        self.cold_starts = 0
        self._command = list(command or (sys.executable, "-m", "awslambdaric", handler))
        self._folder = Path(folder)
        self._environment = dict(environment or {})
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - close() closes it
        self._api: Api | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._finisher: threading.Thread | None = None

    def invoke(self, event: Any, timeout: float | None = None) -> Invocation:
        """Invoke and return as soon as the caller has its answer; `finish()` waits for the end of
        the invocation.
        """
        self.finish()
        invocation = Invocation(event, timeout or self.timeout)
        sandbox = self._warm()
        if sandbox is None:
            invocation.outcome = "exited"
            return invocation
        with contextlib.suppress(Ended):
            sandbox.start(invocation)
        sandbox.wait_responded(invocation)
        self._finisher = threading.Thread(
            target=self._finish, args=(sandbox, invocation), daemon=True
        )
        self._finisher.start()
        return invocation

    def finish(self) -> None:
        """Wait until the last invocation is over and the sandbox frozen (or killed)."""
        if self._finisher is not None:
            self._finisher.join()
            self._finisher = None

    def log(self) -> str:
        """Everything that the function printed, over all its sandboxes."""
        # pread: the child shares the file's offset, which must stay where it is
        number = self._log.fileno()
        return os.pread(number, os.fstat(number).st_size, 0).decode(errors="replace")

    def close(self) -> None:
        """Kill the sandbox, as Lambda does in the end: without a thaw, without a word."""
        self.finish()
        self._kill()
        self._log.close()

    def __enter__(self) -> Function:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # -- one sandbox -------------------------------------------------------------------------------
    def _warm(self) -> Sandbox | None:
        if self.sandbox is not None and self.sandbox.over is None:
            return self.sandbox
        self._kill()
        self.cold_starts += 1
        self.sandbox = Sandbox(self._freeze, self._thaw)
        self._api = Api(self.sandbox, self.name)
        self._process = self._spawn(self._api.address)
        threading.Thread(
            target=self._watch, args=(self._process, self.sandbox), daemon=True
        ).start()
        if self.sandbox.wait_initialised(self.init_timeout):
            return self.sandbox
        self._kill()
        return None

    def _spawn(self, address: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self._command,
            cwd=self._folder,
            env=self._variables(address),
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,  # a process group of its own: the freezer stops all of it
        )

    def _variables(self, address: str) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if name not in _HOST_SETTINGS}
        version = f"{sys.version_info[0]}.{sys.version_info[1]}"
        return {
            **kept,
            "no_proxy": "127.0.0.1",
            "AWS_LAMBDA_RUNTIME_API": address,
            "AWS_LAMBDA_FUNCTION_NAME": self.name,
            "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "512",
            "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
            "AWS_EXECUTION_ENV": f"AWS_Lambda_python{version}",
            "LAMBDA_TASK_ROOT": str(self._folder),
            **self._environment,
        }

    def _watch(self, process: subprocess.Popen[bytes], sandbox: Sandbox) -> None:
        process.wait()
        sandbox.end("Runtime.ExitError")

    def _finish(self, sandbox: Sandbox, invocation: Invocation) -> None:
        sandbox.wait_ended(invocation)
        if sandbox.over is not None:
            self._kill()

    def _freeze(self) -> None:
        if self.freezing:
            self._signal(signal.SIGSTOP)

    def _thaw(self) -> None:
        if self.freezing:
            self._signal(signal.SIGCONT)

    def _kill(self) -> None:
        if self.sandbox is not None:
            self.sandbox.end("Sandbox.Ended")
        self._signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()
        if self._api is not None:
            self._api.close()
        self._api = self._process = None

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)
