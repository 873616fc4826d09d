"""Every error that ldinstrument raises on purpose.

```
LDInstrumentError
├── DefinitionError (ValueError)      a metric, key or decorator that cannot work, at its place
│   └── ConflictingDefinition         two different definitions under one key
├── StrictError                       what would only be logged, raised by `strict=True` (tests)
├── MissingExtra (ImportError)        an optional library is absent; names the extra
├── CredentialsError                  no API token, or one that cannot be one
├── FeedbackTokenError                a feedback token that does not count
│   ├── ForgedFeedbackToken           changed on the way, or signed with another secret
│   ├── ExpiredFeedbackToken          its time is over
│   └── UsedFeedbackToken             redeemed before
├── PlanError                         a plan that must not be applied
└── ApiError                          LaunchDarkly's REST API answered with an error, or not at all
    ├── InvalidRequest (400, 422)
    ├── Unauthorized (401)
    ├── Forbidden (403)
    ├── NotFound (404)
    ├── Conflict (409)
    ├── RateLimited (429)
    ├── ServerError (5xx)
    └── Unreachable                   no answer: DNS, refused, time-out, broken body
```

None of them reaches the host program at run time: they are raised at definition, in control
commands and in tests.
"""

from __future__ import annotations


class LDInstrumentError(Exception):
    """The root of every error of ours."""


class DefinitionError(LDInstrumentError, ValueError):
    """A metric, key or decorator that cannot work; raised where it is written."""


class ConflictingDefinition(DefinitionError):  # noqa: N818
    """Two different definitions under one key; one of them has to change its key."""


class StrictError(LDInstrumentError):
    """A complaint that production only logs, raised because `strict=True`."""


class MissingExtra(LDInstrumentError, ImportError):  # noqa: N818 - reads as what it is
    """An optional library is absent; the message is the command that installs it."""


class CredentialsError(LDInstrumentError):
    """There is no LaunchDarkly API token, or what there is cannot be one."""


class FeedbackTokenError(LDInstrumentError):
    """A feedback token that does not count."""


class ForgedFeedbackToken(FeedbackTokenError):  # noqa: N818
    """A token that was changed on the way, or signed with another secret."""


class ExpiredFeedbackToken(FeedbackTokenError):  # noqa: N818
    """A token whose time is over."""


class UsedFeedbackToken(FeedbackTokenError):  # noqa: N818
    """A token that was redeemed before."""


class PlanError(LDInstrumentError):
    """A plan that must not be applied as it stands."""


class ApiError(LDInstrumentError):
    """LaunchDarkly's REST API refused a request, or did not answer it.

    Args:
        message: LaunchDarkly's own message where there is one.
        status: the HTTP status, 0 when there was no answer.
        code: LaunchDarkly's error code, such as `invalid_request`.
        request: method and path, such as `POST /api/v2/metrics/default`; never a token.
        support_id: the `id` of the answer, which LaunchDarkly's support asks for.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 0,
        code: str = "",
        request: str = "",
        support_id: str = "",
    ):
        super().__init__(message)
        self.message = message
        self.status = status
        self.code = code
        self.request = request
        self.support_id = support_id

    def __str__(self) -> str:
        facts = [
            str(self.status or "no answer"),
            self.code,
            self.request,
            self.support_id and f"id {self.support_id}",
        ]
        return f"{self.message} ({', '.join(fact for fact in facts if fact)})"


class InvalidRequest(ApiError):  # noqa: N818
    """400 or 422: the body is wrong."""


class Unauthorized(ApiError):  # noqa: N818
    """401: the token is wrong, or may not make this call."""


class Forbidden(ApiError):  # noqa: N818
    """403: the token's role does not allow this."""


class NotFound(ApiError):  # noqa: N818
    """404: no such project or metric."""


class Conflict(ApiError):  # noqa: N818
    """409: it exists already, or somebody else changed it at the same moment."""


class RateLimited(ApiError):  # noqa: N818
    """429: too many calls; `retry_after` says how long to wait (seconds)."""

    retry_after: float = 0.0


class ServerError(ApiError):
    """5xx: LaunchDarkly's side failed."""


class Unreachable(ApiError):  # noqa: N818
    """No usable answer: name resolution, refused connection, time-out or a broken body."""


def missing_extra(extra: str, library: str) -> MissingExtra:
    """Return the error for an absent optional *library*, with the command that installs its
    *extra*.
    """
    return MissingExtra(f"{library} is not installed; type: pip install 'ldinstrument[{extra}]'")
