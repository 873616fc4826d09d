"""LaunchDarkly's own REST client, whose strict models validate every answer, against the local
metrics API.
"""

from __future__ import annotations

import ldclient
import pytest

from ldinstrument.devserver import LocalLaunchDarkly, experiment_flag
from ldinstrument.devserver.flags.flags import simple_flag

api = pytest.importorskip("launchdarkly_api")
exceptions = pytest.importorskip("launchdarkly_api.exceptions")


SEMANTIC = "application/json; domain-model=launchdarkly.semanticpatch"
NO_EVENT = {"eventKey": None, "isNumeric": None, "unit": None, "successCriteria": None}


@pytest.fixture(name="client")
def _client(ld: LocalLaunchDarkly):
    with api.ApiClient(api.Configuration(host=ld.url, api_key={"ApiKey": "api-token"})) as client:
        yield client


@pytest.fixture(name="metrics")
def _metrics(client):
    return api.MetricsApi(client)


def post(**fields):
    body = {
        "key": "session.duration",
        "kind": "custom",
        "eventKey": "session.duration",
        "isNumeric": True,
        "unit": "milliseconds",
        "successCriteria": "LowerThanBaseline",
        **fields,
    }
    return api.MetricPost.from_dict(body)


def test_the_whole_life_of_a_metric(metrics):
    """Made, read, patched, listed and deleted."""
    made = metrics.post_metric(
        "default",
        post(
            tags=["a"],
            analysisUnits=["user", "request"],
            name="Duration",
            eventDefault={"disabled": True, "value": 0},
        ),
    )
    assert (made.key, made.version, made.is_numeric, made.unit) == (
        "session.duration",
        1,
        True,
        "milliseconds",
    )
    assert made.analysis_units == made.randomization_units == ["user", "request"]
    assert made.event_default.disabled is True
    patch = [api.PatchOperation(op="replace", path="/name", value="Session length")]
    changed = metrics.patch_metric("default", "session.duration", patch)
    assert (changed.name, changed.version, changed.id) == ("Session length", 2, made.id)
    assert changed.version_id != made.version_id
    assert metrics.get_metric("default", "session.duration") == changed
    listed = metrics.get_metrics("default")
    assert (listed.total_count, [item.key for item in listed.items]) == (1, ["session.duration"])
    assert metrics.delete_metric("default", "session.duration") is None
    assert metrics.get_metrics("default").items == []


@pytest.mark.parametrize(
    "fields",
    [
        {"analysisType": "percentile", "percentileValue": 99},
        {"isNumeric": False, "unit": None, "successCriteria": None, "unitAggregationType": "sum"},
        {**NO_EVENT, "kind": "pageview", "urls": [{"kind": "substring", "substring": "/cart"}]},
        {
            **NO_EVENT,
            "kind": "click",
            "selector": ".buy",
            "urls": [{"kind": "canonical", "url": "https://x.test/"}],
        },
        {"winsorLowerPercentile": 1, "winsorUpperPercentile": 99.5, "winsorIncludeImputed": True},
        {"windowStartOffset": 0, "windowEndOffset": 86400000},
        {
            "filters": {
                "type": "group",
                "op": "and",
                "negate": False,
                "values": [
                    {
                        "type": "eventProperty",
                        "attribute": "category",
                        "op": "in",
                        "values": ["books"],
                        "negate": False,
                    }
                ],
            }
        },
    ],
)
def test_every_kind_of_metric_passes_the_strict_models(metrics, fields):
    """When made and when read with everything expanded."""
    body = {name: value for name, value in post(**fields).to_dict().items() if value is not None}
    made = metrics.post_metric("default", api.MetricPost.from_dict(body))
    read = metrics.get_metric(
        "default", made.key, expand="experiments,experimentCount,metricGroups,metricGroupCount"
    )
    assert read.kind == fields.get("kind", "custom")
    assert metrics.get_metrics("default", expand="experimentCount").items[0].experiment_count == 0


def test_experiments_of_a_metric_pass_the_strict_models(ld, metrics):
    """And are counted."""
    metrics.post_metric("default", post())
    ld.set_flag(experiment_flag("exp", metrics=["session.duration"]))
    read = metrics.get_metric("default", "session.duration", expand="experiments,experimentCount")
    assert (read.experiment_count, [experiment.key for experiment in read.experiments]) == (
        1,
        ["exp"],
    )


def test_an_experiment_passes_the_strict_models(ld, client, metrics):
    """One per flag that randomizes: running while it is on, with the metrics that it names, in
    their versions.
    """
    made = metrics.post_metric("default", post())
    ld.set_flag(
        experiment_flag(
            "exp", context_kind="request", metrics=["session.duration", "no.such.metric"]
        )
    )
    ld.set_flag(simple_flag("plain"))
    experiments = api.ExperimentsApi(client)
    read = experiments.get_experiment("default", "production", "exp", expand="secondaryMetrics")
    assert (read.key, read.environment_key, read.current_iteration.status) == (
        "exp",
        "production",
        "running",
    )
    assert read.current_iteration.randomization_unit == "request"
    assert list(read.current_iteration.flags) == ["exp"]
    assert [(metric.key, metric.version_id) for metric in read.current_iteration.metrics] == [
        (made.key, made.version_id)
    ]
    ld.set_flag({**experiment_flag("exp"), "on": False})
    assert (
        experiments.get_experiment("default", "production", "exp").current_iteration.status
        == "stopped"
    )
    for key in ("plain", "nothing"):
        with pytest.raises(exceptions.NotFoundException):
            experiments.get_experiment("default", "production", key)


def test_when_a_flag_was_evaluated_last(ld, client):
    """From its evaluations, and from the summaries of those that are sent by count only."""
    flags = api.FeatureFlagsApi(client)
    for flag in (experiment_flag("exp"), simple_flag("plain"), simple_flag("idle")):
        ld.set_flag(flag)
    assert flags.get_feature_flag_status("default", "production", "exp").to_dict()["name"] == "new"
    uris = {"base_uri": ld.url, "stream_uri": ld.url, "events_uri": ld.url}
    sdk = ldclient.LDClient(ldclient.Config("sdk-x", **uris, diagnostic_opt_out=True))
    for key in ("exp", "plain"):
        sdk.variation(key, ldclient.Context.create("u"), None)
    sdk.close()
    ld.wait_for(lambda: ld.count("summary"))
    for key in ("exp", "plain"):
        status = flags.get_feature_flag_status("default", "production", key)
        assert (status.name, status.last_requested is not None) == ("active", True)
    assert flags.get_feature_flag_status("default", "production", "idle").last_requested is None
    everywhere = flags.get_feature_flag_status_across_environments("default", "plain")
    assert {key: each.name for key, each in everywhere.environments.items()} == {"local": "active"}
    with pytest.raises(exceptions.NotFoundException):
        flags.get_feature_flag_status("default", "production", "nothing")


def test_pages_filters_and_sorting(metrics):
    """In the parameters of the client."""
    for i in range(7):
        metrics.post_metric("default", post(key=f"m{i}", name=f"m{i}", eventKey=f"e{i % 2}"))
    page = metrics.get_metrics(
        "default", limit=2, offset=2, sort="-createdAt", filter='eventKeys anyOf ["e0"]'
    )
    assert ([item.key for item in page.items], page.total_count) == (["m2", "m0"], 4)
    assert set(page.links) == {"self", "first", "last", "prev"}


def test_each_refusal_is_the_exception_of_its_status(ld, client, metrics):
    """With the message of the API."""
    metrics.post_metric("default", post())
    with pytest.raises(exceptions.ConflictException):
        metrics.post_metric("default", post())
    with pytest.raises(exceptions.BadRequestException, match="unit is required"):
        metrics.post_metric(
            "default",
            api.MetricPost.from_dict(
                {
                    "key": "x",
                    "kind": "custom",
                    "eventKey": "x",
                    "isNumeric": True,
                    "successCriteria": "LowerThanBaseline",
                }
            ),
        )
    with pytest.raises(exceptions.NotFoundException):
        metrics.get_metric("default", "nothing")
    with pytest.raises(exceptions.BadRequestException):
        metrics.patch_metric(
            "default",
            "session.duration",
            [api.PatchOperation(op="replace", path="/key", value="x")],
        )
    ld.fault("/api/v2/metrics/*", status=503, body='{"code": "unavailable", "message": "soon"}')
    with pytest.raises(exceptions.ServiceException):
        metrics.get_metric("default", "session.duration")
    ld.fault("/api/v2/metrics/*", status=429, headers={"X-Ratelimit-Reset": "1"})
    with pytest.raises(exceptions.ApiException) as limited:
        metrics.get_metric("default", "session.duration")
    assert limited.value.status == 429
    client.configuration.api_key["ApiKey"] = "sdk-00000000"
    with pytest.raises(exceptions.UnauthorizedException):
        metrics.get_metrics("default")


def test_projects_context_kinds_settings_and_identity(client):
    """The answers that a plan is made of."""
    assert api.ProjectsApi(client).get_project("default").key == "default"
    assert api.OtherApi(client).get_caller_identity().auth_kind == "token"
    contexts = api.ContextsApi(client)
    contexts.put_context_kind("default", "session", api.UpsertContextKindPayload(name="Session"))
    kinds = {kind.key: kind for kind in contexts.get_context_kinds_by_project_key("default").items}
    assert set(kinds) == {"user", "request", "session"}
    experiments = api.ExperimentsApi(client)
    units = experiments.get_experimentation_settings("default").randomization_units
    body = [
        {"randomizationUnit": unit.randomization_unit, "default": unit.default} for unit in units
    ]
    body.append({"randomizationUnit": "session", "default": False})
    put = api.RandomizationSettingsPut.from_dict({"randomizationUnits": body})
    kept = experiments.put_experimentation_settings("default", put).randomization_units
    assert [unit.randomization_unit for unit in kept] == ["user", "request", "session"]


def test_what_terraform_and_agents_ask_for_passes_the_strict_models(ld, client):
    """Root, versions, projects with environments, flags, experiments and metric groups."""
    other, projects = api.OtherApi(client), api.ProjectsApi(client)
    assert other.get_root().links["projects"].href == "/api/v2/projects"
    assert other.get_versions().latest_version in other.get_versions().valid_versions
    assert [project.key for project in projects.get_projects().items] == ["default"]
    made = projects.post_project(
        api.ProjectPost.from_dict(
            {
                "key": "shop",
                "name": "Shop",
                "tags": ["web"],
                "environments": [{"key": "prod", "name": "Production", "color": "417505"}],
            }
        )
    )
    assert [environment.key for environment in made.environments] == ["prod"]
    read = projects.get_project("shop", expand="environments")
    assert (read.name, read.tags, read.environments.items[0].key) == ("Shop", ["web"], "prod")
    assert projects.get_projects().total_count == 2
    with pytest.raises(exceptions.ConflictException):
        projects.post_project(api.ProjectPost.from_dict({"key": "shop", "name": "Shop"}))
    environments = api.EnvironmentsApi(client)
    assert environments.get_environment("shop", "prod").name == "Production"
    assert environments.get_environments_by_project("shop").total_count == 1
    with pytest.raises(exceptions.NotFoundException):
        environments.get_environment("shop", "nowhere")
    client.set_default_header("LD-API-Version", "beta")
    assert api.MetricsBetaApi(client).get_metric_groups("shop").total_count == 0


def test_flags_are_read_by_the_strict_models(ld, client):
    """Rules, rollouts and experiments."""
    rule = {"id": "r", "variation": 1, "clauses": [{"attribute": "a", "op": "in", "values": [1]}]}
    ld.set_flag({**simple_flag("plain"), "rules": [rule]})
    ld.set_flag(experiment_flag("exp", ["a", "b", "c"]))
    flags = api.FeatureFlagsApi(client)
    page = flags.get_feature_flags("default", limit=1)
    assert (page.total_count, len(page.items)) == (3, 1)
    plain = flags.get_feature_flag("default", "plain")
    assert (plain.kind, [each.value for each in plain.variations]) == ("boolean", [False, True])
    assert plain.environments["local"].rules[0].clauses[0].op == "in"
    exp = flags.get_feature_flag("default", "exp")
    assert (exp.kind, exp.environments["local"].on) == ("multivariate", True)
    with pytest.raises(exceptions.NotFoundException):
        flags.get_feature_flag("default", "nothing")
    found = api.ExperimentsApi(client).get_experiments("default", "production")
    assert [experiment.key for experiment in found.items] == ["new-prompt", "exp"]


def test_iterations_start_and_stop_by_semantic_patch(ld, client):
    """The answer is the experiment after it."""
    ld.set_flag(experiment_flag("exp"))
    experiments = api.ExperimentsApi(client)

    def patch(kind: str) -> api.Experiment:
        body = api.ExperimentPatchInput.from_dict({"instructions": [{"kind": kind}]})
        return experiments.patch_experiment(
            "default", "production", "exp", body, _content_type=SEMANTIC
        )

    assert patch("startIteration").current_iteration.status == "running"
    stopped = patch("stopIteration").current_iteration
    assert (stopped.status, stopped.ended_at is not None) == ("stopped", True)
    again = patch("saveAndStartNewIteration")
    assert again.current_iteration.status == "running"
    assert [each.status for each in again.previous_iterations] == ["stopped"]
    with pytest.raises(exceptions.BadRequestException):
        patch("archiveExperiment")
    body = api.ExperimentPatchInput.from_dict({"instructions": [{"kind": "stopIteration"}]})
    with pytest.raises(exceptions.BadRequestException, match="domain-model"):
        experiments.patch_experiment("default", "production", "exp", body)
