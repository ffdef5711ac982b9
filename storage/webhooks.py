"""Telling others that a job has ended: Standard Webhooks, tried for a day until they are answered.

`storage.changes` records what is to be delivered in the transaction that ends the job. Any worker
or server delivers it, under a lease: one that dies in between costs a minute, and a receiver that
hears of something twice knows it by its `webhook-id`.

Source: https://www.standardwebhooks.com, version 1.0.0.
"""

import base64
import hashlib
import hmac
import json
import logging
import random
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Row, and_, delete, exists, select, update

from storage.addresses import Exceptions
from storage.api_tables import IS_OPEN, deliveries
from storage.clock import Now
from storage.errors import NotFound
from storage.events import prune
from storage.keys import Keys
from storage.ledger import Ledger
from storage.secret import secret_bytes
from storage.settings import Settings
from storage.web import Deadline, Refused, Unreachable, asking, check

logger = logging.getLogger(__name__)

#: Seconds until a receiver must have answered, and those that a delivery belongs to its deliverer.
SECONDS, LEASE = 10.0, 60.0
#: Deliveries that one process makes at the same time.
AT_ONCE = 8
#: Tries; and the seconds before the second one. Each further pause is four times as long, up to
#: the longest: about twenty hours together.
TRIES, FIRST_PAUSE, LONGEST_PAUSE = 10, 5.0, 21_600.0
#: Seconds for which the ledger remembers what came of a delivery.
KEPT = 7 * 86_400.0
#: Seconds between looks for what can be forgotten.
_TIDY = 600.0
#: "The receiver no longer wants it."
_GONE = 410


class Webhooks:
    """Makes the deliveries that are due; several may do so at once."""

    def __init__(self, ledger: Ledger, settings: Settings) -> None:
        self._ledger, self._database = ledger, ledger.database
        self._keys = Keys(ledger.database)
        self._exceptions = Exceptions.parse(settings.allow_private_urls)
        own = settings.webhook_secret
        self._own = [own.get_secret_value()] if own else []
        self._tidied = -_TIDY

    def work(self) -> None:
        """Deliver what is due now, and forget what is old; raises Unavailable."""
        while found := self._take():
            with ThreadPoolExecutor(AT_ONCE) as threads:
                list(threads.map(self._deliver, found))
        if time.monotonic() >= self._tidied + _TIDY:
            self._tidied = time.monotonic()
            with self._database.writing() as connection:
                prune(connection)
                old = deliveries.c.ended_at < Now() - KEPT
                connection.execute(delete(deliveries).where(old))

    def _take(self) -> Sequence[Row[Any]]:
        is_due = and_(IS_OPEN, deliveries.c.due_at <= Now())
        with self._database.reading() as connection:
            if not connection.scalar(select(exists().where(is_due))):
                return []
        due = select(deliveries.c.id).where(is_due).order_by(deliveries.c.due_at).limit(AT_ONCE)
        with self._database.writing() as connection:
            return connection.execute(
                update(deliveries)
                .where(deliveries.c.id.in_(due.with_for_update(skip_locked=True)))
                .values(attempt=deliveries.c.attempt + 1, due_at=Now() + LEASE)
                .returning(deliveries)
            ).all()

    def _deliver(self, row: Row[Any]) -> None:
        error, again = self._try(row)
        values: dict[str, Any] = {"error": error, "delivered": error is None}
        if again and row.attempt < TRIES:
            values["due_at"] = Now() + pause(row.attempt)
        else:
            values["ended_at"] = Now()
        with self._database.writing() as connection:
            connection.execute(
                update(deliveries)
                .where(deliveries.c.id == row.id, deliveries.c.attempt == row.attempt)
                .values(**values)
            )
        level = logging.INFO if error is None else logging.WARNING
        said = "delivered" if error is None else error
        logger.log(level, "job %s: webhook, try %d: %s", row.job_id, row.attempt, said)

    def _try(self, row: Row[Any]) -> tuple[str | None, bool]:
        """What went wrong, if anything did, and whether it is worth another try."""
        secrets = self._keys.webhook_secrets(row.owner) if row.owner else self._own
        if not secrets:
            return "no secret signs it: set LATENTMILL_WEBHOOK_SECRET, or make a key", True
        body = self._body(row)
        headers = sign(f"msg_{row.job_id}_{row.id}", int(time.time()), body, secrets)
        try:
            target = check(row.url, self._exceptions)
            with asking(
                target, Deadline(SECONDS), method="POST", headers=headers, body=body
            ) as answer:
                status = answer.status
        except (Refused, Unreachable) as error:
            return str(error), True
        if 200 <= status < 300:
            return None, False
        return f"{target} answered {status}", status != _GONE

    def _body(self, row: Row[Any]) -> bytes:
        told: dict[str, Any] = {
            "id": row.job_id,
            "state": row.state,
            "error_code": row.error_code,
        }
        try:
            job = self._ledger.job(row.job_id)
        except NotFound:
            job = None
        if job is not None and job.spec is not None:
            told |= {"batch": job.batch, "key": job.spec.key, "labels": job.spec.labels}
        at = datetime.fromtimestamp(row.at, UTC).isoformat(timespec="milliseconds")
        event = {"type": f"job.{row.state}", "timestamp": at, "data": told}
        return json.dumps(event, separators=(",", ":"), ensure_ascii=False).encode()


def sign(message_id: str, timestamp: int, body: bytes, secrets: Sequence[str]) -> dict[str, str]:
    """The headers of a delivery, with a signature for each secret."""
    signed = b".".join([message_id.encode(), str(timestamp).encode(), body])
    digests = (hmac.digest(secret_bytes(secret), signed, hashlib.sha256) for secret in secrets)
    return {
        "Content-Type": "application/json",
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(f"v1,{base64.b64encode(d).decode()}" for d in digests),
    }


def pause(attempt: int) -> float:
    """Seconds until the next try, a little at random: receivers that were away are not mobbed."""
    return float(min(FIRST_PAUSE * 4 ** (attempt - 1), LONGEST_PAUSE) * random.uniform(0.8, 1.2))
