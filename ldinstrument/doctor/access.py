"""The links that all metrics share: this process, the token and its role, the project."""

from __future__ import annotations

from collections.abc import Iterator

from ..errors import ApiError, Forbidden, NotFound, Unauthorized
from ..rest import MetricsAPI
from ..settings import disabled
from .findings import Finding


def access(api: MetricsAPI) -> list[Finding]:
    """Return the links that all metrics share: this process, the token and its role, the
    project.
    """
    findings = list(_environment())
    try:
        role = api.role()
    except ApiError as error:
        return [*findings, _refused("token", error, api)]
    source = f"from {api.token.source}"
    if role in ("reader", "no_access"):
        findings.append(
            Finding(
                "token",
                "warning",
                f"accepted ({source}), but its role is {role}",
                "it cannot create metrics",
                "make a token with the role Writer, and export LAUNCHDARKLY_ACCESS_TOKEN",
            )
        )
    else:
        findings.append(
            Finding("token", "ok", f"accepted ({source}){f', role {role}' if role else ''}")
        )
    try:
        count = api.count()
    except ApiError as error:
        return [*findings, _refused("project", error, api)]
    return [*findings, _project(api, count), *_refusals(api)]


def _project(api: MetricsAPI, count: int | None) -> Finding:
    """Say which project it is, and which others have metrics: looking at the wrong one is
    common.
    """
    what, others = f"{api.project} at {api.host.url}, {count} metrics", _other_projects(api)
    if not others:
        return Finding("project", "ok", what)
    what += f"; {', '.join(others)} {'have' if others[1:] else 'has'} metrics, too"
    if count:
        return Finding("project", "ok", what)
    return Finding(
        "project",
        "warning",
        what,
        "metrics belong to a project",
        f"give --project {others[0]}, or export LAUNCHDARKLY_PROJECT",
    )


def _other_projects(api: MetricsAPI) -> list[str]:
    """Return the other projects of a local LaunchDarkly that have metrics; elsewhere none is
    told.
    """
    try:
        found = api.local("readout", project=api.project)
    except ApiError:
        return []
    others = found.get("otherProjects") if isinstance(found, dict) else None
    return [str(name) for name in others] if isinstance(others, list) else []


def _refusals(api: MetricsAPI) -> Iterator[Finding]:
    """Payloads that a local LaunchDarkly refused: whatever was in them, of any metric, is lost."""
    try:
        found = api.local("payloads")
    except ApiError:
        return
    refusals = found.get("refusals") if isinstance(found, dict) else None
    for refusal in refusals if isinstance(refusals, list) else ():
        yield Finding(
            "payloads",
            "warning",
            f"{refusal.get('posts')} refused ({refusal.get('status')}): {refusal.get('error')}",
            "one value that is no JSON, a wrong SDK key or a body too large loses every event of "
            "its payload",
            "look for track calls beside ldinstrument's: it checks what it sends",
        )


def _environment() -> Iterator[Finding]:
    if disabled():
        yield Finding(
            "environment",
            "warning",
            "LDINSTRUMENT_DISABLED is set here",
            "where it is set, nothing is measured or sent",
            "unset LDINSTRUMENT_DISABLED",
        )


def _refused(check: str, error: ApiError, api: MetricsAPI) -> Finding:
    return Finding(check, "broken", *_reason(error, api))


def _reason(error: ApiError, api: MetricsAPI) -> tuple[str, str, str]:
    """Return what was seen, why it matters and what helps."""
    if isinstance(error, Unauthorized):
        return (
            f"refused: {error}",
            "without it nothing can be read or created",
            "make a new API access token, and export LAUNCHDARKLY_ACCESS_TOKEN",
        )
    if isinstance(error, Forbidden):
        return (
            f"forbidden: {error}",
            "the role of the token does not reach this project",
            "ask for a role with proj/*:metric/*",
        )
    if isinstance(error, NotFound):
        return (
            f"there is no project {api.project!r} at {api.host.url}",
            "metrics belong to a project",
            "give --project KEY, or export LAUNCHDARKLY_PROJECT",
        )
    return (
        f"{api.host.url} did not answer: {error}",
        "nothing can be looked at",
        "check the host (LAUNCHDARKLY_API_HOST, LDINSTRUMENT_URL) and the network",
    )
