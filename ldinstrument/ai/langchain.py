"""Read the model calls of LangChain and LangGraph, also when a chain returns a text.

LangChain has a public place for callbacks of everybody's runs; it is used when asked for, because
registering there concerns the whole process.
"""

from __future__ import annotations

import threading
from contextvars import ContextVar
from typing import Any

from ..diagnostics import guard
from .calls import current_call

_lock = threading.Lock()
_installed: list[Any] = []


def capture_langchain(on: bool = True) -> None:
    """Read each model call of LangChain and LangGraph into the `track_ai` around it, from now on.

    For chains and graphs that return something else than messages: a text, a parsed object. What
    a function returns as well counts once.

    Args:
        on: False reads them no more.

    Raises:
        ImportError: langchain-core is not installed.
    """
    from langchain_core.tracers.context import register_configure_hook

    with _lock:
        if not _installed:
            handler = _handler()
            variable: ContextVar[Any] = ContextVar("ldinstrument_langchain", default=handler)
            register_configure_hook(variable, inheritable=True)
            _installed.append(handler)
        _installed[0].ignores = not on


def _handler() -> Any:
    from langchain_core.callbacks import BaseCallbackHandler

    class ModelCallReader(BaseCallbackHandler):
        """Reads the message that each model call ends with."""

        ignores = False

        def on_llm_end(self, response: Any, **_: Any) -> None:
            """Read the messages of *response*."""
            call = current_call()
            if call is None or self.ignores:
                return
            with guard("LangChain's callback", strict=False):
                for generations in response.generations:
                    for generation in generations:
                        call.read(getattr(generation, "message", None))

    return ModelCallReader()
