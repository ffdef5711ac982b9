"""`keys`: made, listed, revoked."""

import json

from producer import Client
from storage.keys import Keys, Scope
from tests.producer.conftest import Run


def test_a_key_is_shown_once(run: Run, client: Client) -> None:
    said = json.loads(run("keys", "add", "ada", "--max-queued", 5, "--json").out)

    found = Keys(client.ledger.database).find(said["token"])
    assert found is not None
    assert (found.owner, found.scope, found.max_queued) == ("ada", Scope.SUBMIT, 5)
    assert said["webhook_secret"].startswith("whsec_")
    listed = run("keys", "list").out
    assert "ada" in listed
    assert said["token"] not in listed
    assert said["token"] not in run("keys", "list", "--json").out


def test_a_revoked_key_opens_nothing(run: Run, client: Client) -> None:
    said = json.loads(run("keys", "add", "ada", "--json").out)
    assert run("keys", "revoke", said["hint"]).status == 0
    assert Keys(client.ledger.database).find(said["token"]) is None
    assert run("keys", "revoke", "lm_nothing").status == 4


def test_an_owner_needs_a_name(run: Run) -> None:
    ended = run("keys", "add", " ")
    assert ended.status == 2
    assert "owner" in ended.err
