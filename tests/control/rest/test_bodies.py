"""The bodies of requests, beside those of the official client."""

from __future__ import annotations

import json
from typing import Any

import pytest
from launchdarkly_api.models.metric_post import MetricPost
from launchdarkly_api.models.patch_operation import PatchOperation
from launchdarkly_api.models.randomization_settings_put import RandomizationSettingsPut
from launchdarkly_api.models.upsert_context_kind_payload import UpsertContextKindPayload
from metric_kinds import EVERY_KIND

from ldinstrument.devserver import LocalLaunchDarkly
from ldinstrument.metrics.metric import Metric
from ldinstrument.rest import MetricsAPI
from ldinstrument.rest.bodies import metric_body


@pytest.mark.parametrize("metric", EVERY_KIND, ids=lambda metric: metric.key)
def test_every_body_is_one_that_the_official_client_would_send(metric: Any) -> None:
    """`MetricPost` of launchdarkly-api takes each body, knows each field, and gives the same JSON
    back.
    """
    body = metric_body(metric)
    model = MetricPost.from_dict(body)
    assert model is not None
    assert model.to_dict() == body
    assert {"name", "kind"} <= body.keys()
    assert body["kind"] != "custom" or "eventDefault" in body


def test_every_other_body_is_one_that_the_official_client_would_send(
    api: MetricsAPI, ld: LocalLaunchDarkly, latency: Metric
) -> None:
    """Patches, context kinds and experimentation settings pass the request models, too."""
    seen: list[tuple[str, str, Any]] = []

    def look(method: str, path: str, _: Any, body: bytes) -> bool:
        seen.append((method, path, json.loads(body or b"null")))
        return False

    for method in ("PATCH", "PUT"):
        ld.fault("*", method=method, when=look, times=None, status=500)
    api.create(latency)
    api.update(latency.key, {"unit": "seconds"})
    api.rename(latency.key, "Latency")
    api.create_context_kind("organization")
    api.add_analysis_unit("organization")
    patches = [step for method, _, body in seen if method == "PATCH" for step in body]
    assert patches
    for step in patches:
        model = PatchOperation.from_dict(step)
        assert model is not None
        assert model.to_dict() == step
    puts = [body for method, _, body in seen if method == "PUT"]
    assert UpsertContextKindPayload.model_validate(puts[0]).to_dict() == puts[0]
    assert RandomizationSettingsPut.model_validate(puts[1]).to_dict() == puts[1]
    assert api.analysis_units() == ("user", "request", "organization")
    assert "organization" in api.context_kinds()
