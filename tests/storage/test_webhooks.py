"""Webhooks: signed, delivered once they can be, and never lost."""

import base64
import hashlib
import hmac
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from sqlalchemy import select, update

from storage import webhooks as module
from storage.api_tables import deliveries
from storage.jobs import Selection
from storage.keys import Keys
from storage.ledger import Ledger
from storage.secret import new_secret
from storage.settings import Settings
from storage.webhooks import Webhooks, pause
from tests.storage.specs import a_spec, finish

OWN = new_secret()


@dataclass
class Receiver:
    """A server that keeps what it was told, and answers as it is set."""

    url: str = ""
    status: int = 204
    heard: list[tuple[dict[str, str], bytes]] = field(default_factory=list)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    found = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            found.heard.append(({k.lower(): v for k, v in self.headers.items()}, body))
            self.send_response(found.status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    found.url = f"http://127.0.0.1:{server.server_port}/ended?token=x"
    yield found
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def webhooks(ledger: Ledger) -> Webhooks:
    return Webhooks(ledger, Settings(allow_private_urls=("127.0.0.1",), webhook_secret=OWN))


def make_due(ledger: Ledger) -> None:
    with ledger.database.writing() as connection:
        connection.execute(update(deliveries).values(due_at=0))


def outcome(ledger: Ledger) -> tuple[int, bool, bool, str | None]:
    """Tries, whether it was delivered, whether it is over, and what went wrong."""
    with ledger.database.reading() as connection:
        row = connection.execute(select(deliveries)).one()
    return row.attempt, row.delivered, row.ended_at is not None, row.error


def verifies(secret: str, headers: dict[str, str], body: bytes) -> bool:
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    key = base64.b64decode(secret.removeprefix("whsec_"))
    wanted = "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
    return wanted in headers["webhook-signature"].split()


def succeeds(ledger: Ledger) -> None:
    claim = ledger.claim(worker="w", pool="default", lease_seconds=30)
    assert claim is not None
    finish(ledger, claim)


def is_canceled(ledger: Ledger) -> None:
    [job] = ledger.jobs()
    ledger.cancel(Selection(ids=(job.id,)))


@pytest.mark.parametrize(("ends", "kind"), [(succeeds, "succeeded"), (is_canceled, "canceled")])
def test_the_end_of_a_job_is_told_to_its_url(
    ledger: Ledger,
    webhooks: Webhooks,
    receiver: Receiver,
    ends: Callable[[Ledger], None],
    kind: str,
) -> None:
    [job] = ledger.submit([a_spec(webhook_url=receiver.url, key="k", labels={"a": "b"})])
    webhooks.work()
    assert receiver.heard == []
    ends(ledger)

    webhooks.work()
    webhooks.work()

    [(headers, body)] = receiver.heard
    event = json.loads(body)
    assert event["type"] == f"job.{kind}"
    assert (event["data"]["id"], event["data"]["key"]) == (job.id, "k")
    assert verifies(OWN, headers, body)
    assert not verifies(new_secret(), headers, body)
    assert outcome(ledger) == (1, True, True, None)


def test_every_key_of_the_owner_signs_and_no_other_does(
    ledger: Ledger, webhooks: Webhooks, receiver: Receiver
) -> None:
    keys = Keys(ledger.database)
    mine = [keys.add("ada"), keys.add("ada")]
    other, gone = keys.add("bob"), keys.add("ada")
    keys.revoke(gone.key.id)
    ledger.submit([a_spec(webhook_url=receiver.url)], owner="ada")
    is_canceled(ledger)

    webhooks.work()

    [(headers, body)] = receiver.heard
    assert all(verifies(new.webhook_secret, headers, body) for new in mine)
    assert not any(verifies(new.webhook_secret, headers, body) for new in (other, gone))


def test_what_is_not_answered_is_tried_again_under_the_same_id(
    ledger: Ledger, webhooks: Webhooks, receiver: Receiver
) -> None:
    receiver.status = 503
    ledger.submit([a_spec(webhook_url=receiver.url)])
    is_canceled(ledger)
    webhooks.work()
    webhooks.work()
    assert len(receiver.heard) == 1, "the next try has its time"
    tries, delivered, over, error = outcome(ledger)
    assert (tries, delivered, over) == (1, False, False)
    assert error is not None
    assert "answered 503" in error
    assert "token" not in error

    receiver.status = 200
    make_due(ledger)
    webhooks.work()

    assert len({headers["webhook-id"] for headers, _ in receiver.heard}) == 1
    assert outcome(ledger) == (2, True, True, None)


def test_a_deliverer_that_dies_loses_nothing(
    ledger: Ledger, webhooks: Webhooks, receiver: Receiver
) -> None:
    ledger.submit([a_spec(webhook_url=receiver.url)])
    is_canceled(ledger)
    [taken] = webhooks._take()  # and then it dies

    webhooks.work()
    assert receiver.heard == [], "it is another's"
    make_due(ledger)  # its lease is over
    webhooks.work()
    webhooks._deliver(taken)  # it was not dead

    assert outcome(ledger) == (2, True, True, None)


def test_it_is_given_up_after_about_a_day(
    ledger: Ledger, webhooks: Webhooks, receiver: Receiver
) -> None:
    assert 12 * 3600 < sum(pause(n) for n in range(1, module.TRIES)) < 30 * 3600
    receiver.status = 500
    ledger.submit([a_spec(webhook_url=receiver.url)])
    is_canceled(ledger)

    for _ in range(module.TRIES + 2):
        webhooks.work()
        make_due(ledger)

    assert len(receiver.heard) == module.TRIES
    assert outcome(ledger)[:3] == (module.TRIES, False, True)


def test_a_receiver_that_is_gone_is_not_called_again(
    ledger: Ledger, webhooks: Webhooks, receiver: Receiver
) -> None:
    receiver.status = 410
    ledger.submit([a_spec(webhook_url=receiver.url)])
    is_canceled(ledger)
    webhooks.work()
    assert outcome(ledger)[:3] == (1, False, True)


def test_a_redirect_is_not_followed(ledger: Ledger, webhooks: Webhooks, receiver: Receiver) -> None:
    receiver.status = 307
    ledger.submit([a_spec(webhook_url=receiver.url)])
    is_canceled(ledger)
    webhooks.work()
    assert len(receiver.heard) == 1
    assert outcome(ledger)[1] is False


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1/",
        "https://169.254.169.254/latest/meta-data",
        "https://[::ffff:10.0.0.1]/",
        "http://93.184.215.14/",
    ],
)
def test_nothing_is_sent_to_what_is_not_public(ledger: Ledger, url: str) -> None:
    ledger.submit([a_spec(webhook_url=url)])
    is_canceled(ledger)
    Webhooks(ledger, Settings(webhook_secret=OWN)).work()
    tries, delivered, _, error = outcome(ledger)
    assert (tries, delivered) == (1, False)
    assert error is not None
    assert "not on the public internet" in error or "must begin with https://" in error


def test_without_a_secret_nothing_is_sent_and_the_reason_is_kept(
    ledger: Ledger, receiver: Receiver
) -> None:
    ledger.submit([a_spec(webhook_url=receiver.url)])
    is_canceled(ledger)
    Webhooks(ledger, Settings(allow_private_urls=("127.0.0.1",))).work()
    assert receiver.heard == []
    error = outcome(ledger)[3]
    assert error is not None
    assert "LATENTMILL_WEBHOOK_SECRET" in error
