"""Whether the variations of an experiment can be compared."""

from __future__ import annotations

from traffic_and_findings import VALUE, broken, client_of, send, user

from ldinstrument.devserver import LocalLaunchDarkly, experiment_flag
from ldinstrument.doctor import examine
from ldinstrument.rest import MetricsAPI


def test_a_broken_split_is_no_comparison(ld: LocalLaunchDarkly, api: MetricsAPI) -> None:
    """As many units as allocated in each variation, or nothing can be said."""
    ld.set_flag(experiment_flag("new-cart", [False, True]))
    api.create(VALUE)
    silent = client_of(ld, send_events=False)
    users = [user(f"u-{number}") for number in range(600)]
    arms = [bool(silent.variation("new-cart", context, False)) for context in users]
    silent.close()
    # Two of three in one arm never come.
    came = [user for nth, user in enumerate(users) if not arms[nth] or nth % 3 == 0]
    send(ld, *(("cart.value", context, 1.0 + len(context.key)) for context in came), exposed=came)

    finding = broken(examine(VALUE.key, api, [VALUE]))

    assert finding.check == "comparison"
    assert "sample ratio mismatch" in finding.what
