"""Calls of language models: what they use, cost and answer, as metrics of the session.

Names load at first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..imports import public_names

if TYPE_CHECKING:
    from ..metrics.model_calls import (
        QUALITY_ACCURACY,
        QUALITY_RELEVANCE,
        RECOMMENDATION_CONVERSION,
        TASK_COMPLETION,
    )
    from .calls import Call, current_call
    from .cost import Cost, Price, Prices, PriceTable
    from .feedback import FeedbackToken, read_feedback_token, redeem_feedback_token
    from .judges import track_judge
    from .langchain import capture_langchain
    from .options import estimate_tokens
    from .usage import Generation, Usage

__all__ = [
    "Call",
    "Cost",
    "FeedbackToken",
    "Generation",
    "Price",
    "PriceTable",
    "Prices",
    "QUALITY_ACCURACY",
    "QUALITY_RELEVANCE",
    "RECOMMENDATION_CONVERSION",
    "TASK_COMPLETION",
    "Usage",
    "capture_langchain",
    "current_call",
    "estimate_tokens",
    "read_feedback_token",
    "redeem_feedback_token",
    "track_judge",
]

_HOMES = {
    "Call": "calls",
    "Cost": "cost",
    "FeedbackToken": "feedback",
    "Generation": "usage",
    "Price": "cost",
    "PriceTable": "cost",
    "Prices": "cost",
    "TASK_COMPLETION": ".metrics.model_calls",
    "RECOMMENDATION_CONVERSION": ".metrics.model_calls",
    "QUALITY_RELEVANCE": ".metrics.model_calls",
    "QUALITY_ACCURACY": ".metrics.model_calls",
    "Usage": "usage",
    "capture_langchain": "langchain",
    "current_call": "calls",
    "estimate_tokens": "options",
    "read_feedback_token": "feedback",
    "redeem_feedback_token": "feedback",
    "track_judge": "judges",
}


__getattr__ = public_names(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted(__all__)
