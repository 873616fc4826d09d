"""The walk as a whole: what is missing, what is misspelt, and many metrics at once."""

from __future__ import annotations

from traffic_and_findings import VALUE, broken, send, user

from ldinstrument.devserver import LocalLaunchDarkly, experiment_flag
from ldinstrument.doctor import examine, examine_all
from ldinstrument.metrics.metric import Metric
from ldinstrument.rest import MetricsAPI


def test_missing_in_launchdarkly(api: MetricsAPI) -> None:
    """Declared and not created: apply."""
    assert broken(examine("cart.value", api, [VALUE])).command == "ldinstrument apply"


def test_missing_everywhere_names_the_likely_one(api: MetricsAPI) -> None:
    """Differs by case, by a letter, or is only in LaunchDarkly."""
    assert "did you mean cart.value" in broken(examine("Cart.Value", api, [VALUE])).what
    assert "did you mean cart.value" in broken(examine("cart.vlaue", api, [VALUE])).what
    api.create(VALUE)
    assert broken(examine("cart.val", api, [])).command == "ldinstrument doctor cart.value"
    assert "metrics create nothing.alike" in broken(examine("nothing.alike", api, [])).command


def test_a_typing_error_is_recognised(ld: LocalLaunchDarkly, api: MetricsAPI) -> None:
    """Of a metric of ours, of the code, of the project."""
    api.create(VALUE)

    assert "did you mean session.duration?" in broken(examine("session.duratoin", api, [])).what
    assert "did you mean cart.value?" in broken(examine("cart.vlaue", api, [])).what


def test_a_metric_of_ours_that_nobody_uses_yet(api: MetricsAPI) -> None:
    """It is not taken for a typing error of itself."""
    found = broken(examine("revenue.impact", api, [VALUE]))

    assert "one of ldinstrument's" in found.what
    assert found.command == "ldinstrument apply"


def test_all_metrics_at_once(ld: LocalLaunchDarkly, api: MetricsAPI, latency: Metric) -> None:
    """For each the warnings and the first broken link; nothing for those that are well."""
    ld.set_flag(experiment_flag("new-cart", [False, True]))
    api.create(VALUE)
    send(ld, ("cart.value", user("u"), 2.0), exposed=user("u"))
    shared, told = examine_all(api, [VALUE, latency])
    assert {finding.status for finding in shared} == {"ok"}
    assert [finding.check for finding in told[latency.key]] == ["metric"]
    assert [finding for finding in told[VALUE.key] if finding.status == "broken"] == []
