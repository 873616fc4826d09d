"""The read-out as JSON: what `/dev/readout` answers, for the page and the terminal."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from ...analysis import result_document
from ..database import Document
from .readout import ExperimentReadout, MetricReadout, Readout


def readout_document(readout: Readout, revision: int) -> Document:
    """Return a read-out as JSON types.

    Args:
        readout: what is told.
        revision: of the database that it was read from.

    Returns:
        `experiments` with variations, metrics and their analysis, `rows` by metric, flag and
        variation, and `totals` by event key.
    """
    return {
        "revision": revision,
        "experiments": [_experiment(experiment) for experiment in readout.experiments],
        "rows": [_flat(row) for row in readout.rows],
        "totals": [_flat(total) for total in readout.totals],
    }


def _experiment(experiment: ExperimentReadout) -> Document:
    return {
        "flag": experiment.flag,
        "iteration": experiment.iteration.number,
        "running": experiment.iteration.running,
        "kinds": list(experiment.kinds),
        "variations": [asdict(variation) for variation in experiment.variations],
        "metrics": [_metric(metric) for metric in experiment.metrics],
    }


def _metric(found: MetricReadout) -> Document:
    return {
        "metric": found.metric["key"],
        "project": found.project,
        "unit": found.metric.get("unit", ""),
        "statistic": statistic_of(found.metric),
        "higherIsBetter": found.metric.get("successCriteria") != "LowerThanBaseline",
        "reason": found.reason,
        "rows": [_flat(row) for row in found.rows],
        "result": None if found.result is None else result_document(found.result),
    }


def statistic_of(metric: Document) -> str:
    """Return what a metric compares: `mean`, `total`, `events per unit`, `share` or `p95`."""
    if metric.get("analysisType") == "percentile":
        return f"p{metric.get('percentileValue')}"
    if metric.get("isNumeric"):
        return "total" if metric.get("unitAggregationType") == "sum" else "mean"
    return "events per unit" if metric.get("unitAggregationType") == "sum" else "share"


def _flat(row: Any) -> Document:
    """Return a dataclass with its distribution beside the other fields."""
    fields = asdict(row)
    distribution = fields.pop("distribution")
    return {**fields, **distribution}
