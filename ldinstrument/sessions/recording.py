"""What a program says to a session: values, interactions, LaunchDarkly's recipe.

Nothing here raises into the host.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..diagnostics import never_raises, withhold
from ..metrics.metric import Metric
from ..metrics.standard import (
    BUSINESS_CONVERSION,
    NEGATIVE_FEEDBACK,
    REVENUE_IMPACT,
    TASK_SUCCESS,
    USER_SATISFACTION,
)
from .accumulator import Sample
from .clock import clock
from .outcomes import Outcome
from .task_definition import INTERACTION
from .validation import discard, measurement, number


class SampleRecorder:
    """Turns what a program says into samples."""

    __slots__ = ()

    def append(self, entry: Sample) -> None:
        """Take one sample."""
        raise NotImplementedError

    def record(
        self, metric: Metric | str, value: Any = None, *, data: Mapping[str, Any] | None = None
    ) -> None:
        """Record a value of *metric*, of any kind; see `Session.record`."""
        try:
            measured = measurement(metric, value, data)
            if measured is not None:
                self.append((*measured, clock(), None))
        except Exception as error:
            withhold("record", error)

    @never_raises
    def interaction(self, success: bool | Outcome = True, *, at: float | None = None) -> None:
        """Count one interaction: something the user did that succeeded or failed.

        Args:
            success: whether it succeeded; an `Outcome` is taken as it is.
            at: when, as a reading of `time.perf_counter`; now when None.
        """
        outcome = (
            success
            if isinstance(success, Outcome)
            else Outcome.SUCCESS
            if success
            else Outcome.FAILURE
        )
        when = clock() if at is None else at
        self.append((INTERACTION, outcome, when, when, None))

    @never_raises
    def conversion(self, value: Any = 0.0, **data: Any) -> None:
        """Record `business.conversion`: *value* in dollars. `config_key=` becomes `configKey` in
        the data.
        """
        self.record(BUSINESS_CONVERSION, value, data=_wire_names(data))

    @never_raises
    def satisfaction(self, score: Any, **data: Any) -> None:
        """Record `user.satisfaction` (0 to 100), and `user.negative_feedback` below 50.

        `feedback_type=` becomes `feedbackType` in the data.
        """
        rated, wire = number(score), _wire_names({"feedback_type": "explicit", **data})
        if rated is not None and not 0 <= rated <= 100:
            discard(
                USER_SATISFACTION.event, "out_of_range", "a satisfaction score is between 0 and 100"
            )
            return
        self.record(USER_SATISFACTION, score, data=wire)
        if rated is not None and rated < 50:
            self.record(NEGATIVE_FEEDBACK, data=wire)

    @never_raises
    def revenue(self, value: Any, **data: Any) -> None:
        """Record `revenue.impact`: *value* in dollars, only when it is above 0."""
        amount = number(value)
        if amount is None or amount > 0:
            self.record(REVENUE_IMPACT, value, data=_wire_names(data))

    @never_raises
    def task_success(self, task_type: str, success: bool, **data: Any) -> None:
        """Record `task.success_rate`: 1 or 0, with *task_type* as `taskType` in the data."""
        self.record(
            TASK_SUCCESS, 1.0 if success else 0.0, data={**_wire_names(data), "taskType": task_type}
        )

    @never_raises
    def feedback(
        self,
        positive: bool,
        *,
        comment: str | None = None,
        send_comment: bool = False,
        **data: Any,
    ) -> None:
        """Record a thumb: satisfaction 100 or 0, and `user.negative_feedback` for a thumb down.

        *comment*, what the user wrote, stays here unless *send_comment* says that it may leave.
        """
        if comment is not None and send_comment:
            data["comment"] = comment
        self.satisfaction(100 if positive else 0, **{"feedback_type": "thumb", **data})


_WIRE_NAMES = {"config_key": "configKey", "feedback_type": "feedbackType", "task_type": "taskType"}


def _wire_names(data: Mapping[str, Any]) -> dict[str, Any]:
    """Spell the data's keys as LaunchDarkly's recipe does on the wire."""
    return {_WIRE_NAMES.get(key, key): value for key, value in data.items()}
