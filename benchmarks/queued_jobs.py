"""The jobs of `servers.py`, for several queues: each records something and counts itself as done."""

from __future__ import annotations

import os
import time

import ldclient
import redis

import ldinstrument as ld

REDIS, QUEUE = os.environ["JOBS_REDIS"], os.environ.get("JOBS_QUEUE")
# Nothing leaves by itself: whatever arrives was sent at the end.
ldclient.set_config(ld.launchdarkly_config("sdk-local", flush_interval=300))
ldclient.get()


def work(user: str, seconds: float = 0.0) -> None:
    """Record a conversion, and say in Redis that this job has begun and that it is done."""
    done = redis.Redis.from_url(REDIS)
    done.incr("begun")
    time.sleep(seconds)
    ld.track_conversion(3.0)
    done.incr("done")


rq_job = ld.session(context=lambda user, seconds=0.0: user, name="job")(work)

if QUEUE == "dramatiq":
    import dramatiq
    from dramatiq.brokers.redis import RedisBroker

    dramatiq.set_broker(RedisBroker(url=REDIS))
    dramatiq_job = dramatiq.actor(actor_name="dramatiq_job", max_retries=0)(rq_job)
elif QUEUE == "huey":
    from huey import RedisHuey

    huey = RedisHuey("jobs", url=REDIS)
    huey_job = huey.task(name="huey_job")(rq_job)
elif QUEUE == "celery":
    from celery import Celery

    from ldinstrument.integrations.celery import instrument

    app = Celery("queued_jobs", broker=REDIS)
    app.conf.worker_hijack_root_logger = False
    instrument(app, context=lambda task: task.request.args[0])
    celery_job = app.task(name="queued_jobs.celery_job")(work)
