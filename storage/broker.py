"""Celery on Redis: how word gets round that a pool has work. An invitation carries nothing else."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from celery import Celery
from kombu.exceptions import KombuError, OperationalError
from kombu.utils.url import maybe_sanitize_url
from redis.exceptions import RedisError

from storage.errors import BrokerUnavailable, NotConfigured

#: An invitation: take the best job of the pool, if there is one.
WORK = "latentmill.work"
#: How applications that have nothing but Redis ask: one argument, a spec (see storage.inbox).
SUBMIT = "latentmill.submit"
#: Where `SUBMIT` is sent. No pool's queue has this name.
SUBMISSIONS = "latentmill-submit"
#: A Redis hash: how many messages were refused, by reason.
REFUSED = "latentmill-refused"
SCHEMES = ("redis", "rediss", "redis+socket")
#: Seconds for one answer from Redis: a frozen broker must not hold up its clients.
SOCKET_TIMEOUT = 2.5


def queue_name(pool: str) -> str:
    return f"latentmill.{pool}"


def celery_app(redis_url: str) -> Celery:
    """The app that producers invite with and workers consume with; connects when first used."""
    scheme = redis_url.partition("://")[0]
    if scheme not in SCHEMES:
        raise NotConfigured(f"redis_url: must begin with {', '.join(f'{s}://' for s in SCHEMES)}")
    app = Celery("latentmill", broker=redis_url, set_as_current=False)
    app.conf.update(
        accept_content=["json"],
        task_serializer="json",
        task_ignore_result=True,
        # The ledger's leases decide who repeats a job: an invitation is done when it is taken.
        task_acks_late=False,
        worker_prefetch_multiplier=1,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_connection_timeout=SOCKET_TIMEOUT,
        broker_transport_options={
            "socket_timeout": SOCKET_TIMEOUT,
            "socket_connect_timeout": SOCKET_TIMEOUT,
            "socket_keepalive": True,
            "health_check_interval": 15,
            "max_retries": 0,
        },
    )
    return app


def invite(app: Celery, pool: str, count: int = 1) -> None:
    """Tell the workers of a pool that there may be work; raises BrokerUnavailable."""
    with _explained(app):
        for _ in range(count):
            app.send_task(WORK, args=[], queue=queue_name(pool), retry=False)


def waiting(app: Celery, pool: str) -> int:
    """Invitations that no worker has taken yet; raises BrokerUnavailable."""
    with client(app) as redis:
        return int(redis.llen(queue_name(pool)))


def count_refused(app: Celery, reason: str, count: int = 1) -> None:
    """Note that messages were refused; raises BrokerUnavailable."""
    with client(app) as redis:
        redis.hincrby(REFUSED, reason, count)


def refused(app: Celery) -> dict[str, int]:
    """How many messages were ever refused, by reason; raises BrokerUnavailable."""
    with client(app) as redis:
        return {reason.decode(): int(n) for reason, n in redis.hgetall(REFUSED).items()}


@contextmanager
def client(app: Celery) -> Iterator[Any]:
    """A Redis client for a block; what goes wrong in it is BrokerUnavailable."""
    with _explained(app), app.connection_for_read() as connection:
        yield connection.default_channel.client


def check(app: Celery) -> None:
    """Raises BrokerUnavailable when Redis does not answer."""
    with client(app) as redis:
        redis.ping()


@contextmanager
def _explained(app: Celery) -> Iterator[None]:
    try:
        yield
    except (KombuError, OperationalError, RedisError, OSError) as error:
        place = maybe_sanitize_url(app.conf.broker_url)
        raise BrokerUnavailable(f"the broker at {place} cannot be used: {error}") from None
