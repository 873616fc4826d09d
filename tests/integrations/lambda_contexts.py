"""What AWS's runtime hands to a handler, for the tests of the Lambda parts."""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass
class LambdaContext:
    """What AWS's runtime hands to a handler, as far as it matters here."""

    aws_request_id: str = "request-1"
    function_name: str = "quotes"
    function_version: str = "7"
    seconds: float = 60.0

    def __post_init__(self) -> None:
        self._until = time.monotonic() + self.seconds

    def get_remaining_time_in_millis(self) -> int:
        return max(0, int((self._until - time.monotonic()) * 1000))
