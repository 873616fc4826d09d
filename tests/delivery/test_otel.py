"""The ledger as OpenTelemetry counters."""

from __future__ import annotations

import faults
from ldclient import Config, Context, LDClient

from ldinstrument.delivery import Plugin, flush

CONTEXT = Context.builder("u-1").name("Ana").build()


def test_the_ledger_as_opentelemetry_counters(server):
    """A meter provider given to the plugin shows the ledger."""
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    config = faults.config(server.url, flush_interval=3600)
    client = LDClient(
        Config(
            "sdk-good",
            events_uri=server.url,
            use_ldd=True,
            plugins=[Plugin(meter_provider=provider)],
            event_processor_class=config.event_processor_class,
        )
    )
    client.track("a", CONTEXT)
    client.track("b", CONTEXT, {"n": object()})
    flush(30.0, client)
    data = reader.get_metrics_data().resource_metrics[0].scope_metrics[0].metrics
    seen = {
        (metric.name, *point.attributes.values()): point.value
        for metric in data
        for point in metric.data.data_points
    }
    assert seen == {
        ("ldinstrument.events.emitted",): 2,
        ("ldinstrument.events.delivered",): 1,
        ("ldinstrument.events.unconfirmed",): 0,
        ("ldinstrument.events.pending",): 0,
        ("ldinstrument.events.dropped", "not_json"): 1,
    }
    client.close()
    provider.shutdown()
