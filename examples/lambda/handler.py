"""A Lambda function whose numbers reach LaunchDarkly, though it is frozen after each response.

`deploy` it with template.yaml, or run it here: `python run_local.py`.
"""

from __future__ import annotations

import os
from typing import Any

import ldclient
from ldclient.config import HTTPConfig

import ldinstrument as ld
from ldinstrument.integrations.aws_lambda import lambda_handler

# Module level is Lambda's initialisation: the client is made once per sandbox, and never closed.
# `events_only` makes it ready without a request; leave it out to evaluate flags. The SDK key comes
# from LAUNCHDARKLY_SDK_KEY.
http = HTTPConfig(connect_timeout=1, read_timeout=2, ca_certs=os.environ.get("EVENTS_CA_FILE"))
ldclient.set_config(ld.launchdarkly_config(events_only=True, http=http))
ldclient.get()


@ld.track_task("quote.price")
def price(items: int) -> float:
    if items < 1:
        raise ValueError("nothing to buy")
    return 4.5 * items


def is_success(result: dict[str, Any]) -> bool:
    return bool(result["statusCode"] < 500)


@lambda_handler(
    context=lambda event, lambda_context: event["userId"],
    success=is_success,
    deliver="before_response"
    if os.environ.get("DELIVER") == "before_response"
    else "after_response",
)
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    total = price(event["items"])
    ld.track_conversion(total, config_key="quotes")
    return {"statusCode": 200, "total": total}
