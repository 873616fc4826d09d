"""RQ, whose work horses leave by `os._exit` as soon as the job is done."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ldinstrument.devserver import LocalLaunchDarkly

rq = pytest.importorskip("rq")
HERE = Path(__file__).parent
WORKER = """
import sys, redis, rq
if sys.argv[2] == "preloaded":
    import rq_jobs
connection = redis.Redis.from_url(sys.argv[1])
rq.Worker([rq.Queue(connection=connection)], connection=connection).work(burst=True)
"""


@pytest.mark.parametrize("loaded", ["by the job", "preloaded"])
def test_every_job_is_delivered_by_its_work_horse(
    loaded: str, launchdarkly: LocalLaunchDarkly, redis_of_its_own: Any
) -> None:
    """With RQ's own worker, also when the job fails, and also when the worker has loaded the client
    before it forks.
    """
    import redis

    connection = redis.Redis.from_url(redis_of_its_own.url)
    queue = rq.Queue(connection=connection)
    for number in range(3):
        queue.enqueue("rq_jobs.work", f"user-{number}", fails=number == 2)
    environment = {
        **os.environ,
        "LDINSTRUMENT_URL": launchdarkly.url,
        "no_proxy": "127.0.0.1",
        "PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")]),
    }

    worker = subprocess.run(
        [sys.executable, "-c", WORKER, redis_of_its_own.url, loaded],
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
    )

    arrived = launchdarkly.custom_events("job.interactions")
    told = worker.stdout + worker.stderr
    assert sorted(event["context"]["key"] for event in arrived) == [
        "user-0",
        "user-1",
        "user-2",
    ], told
    reasons = [event["data"]["endReason"] for event in arrived]
    assert sorted(reasons) == ["ended", "ended", "error"]
    values = [event["metricValue"] for event in launchdarkly.custom_events("business.conversion")]
    assert values == [2.0] * 3
