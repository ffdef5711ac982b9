import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from producer import Client, Text2Img
from producer.commands.times import read_time
from storage.errors import InvalidSpec, NotFound
from storage.jobs import State
from tests.producer.conftest import Hand, Run

RED: dict[str, Any] = {"model": "demo", "prompt": "red"}


def test_cancel_says_of_each_job_which_it_was(run: Run, client: Client, hand: Hand) -> None:
    done, runs, waits = (client.submit(Text2Img(**RED), priority=p).id for p in (2, 1, 0))
    hand.succeed()
    hand.claim()
    ended = run("cancel", done, runs, waits)
    assert ended.status == 0
    assert sorted(ended.out.splitlines()) == sorted(
        [
            f"{done}: had ended: succeeded",
            f"{runs}: runs; it leaves at its next step boundary",
            f"{waits}: canceled",
        ]
    )
    assert "running (to be canceled)" in run("show", runs).out
    assert "canceled" in run("jobs", "--state", "canceled").out
    lines = run("cancel", runs, "--json").out.splitlines()
    assert json.loads(lines[0]) == {"id": runs, "outcome": "leaving", "state": "running"}


def test_a_batch_and_a_label_are_canceled_and_tried_again_as_a_whole(
    run: Run, client: Client
) -> None:
    jobs = list(client.submit_many([Text2Img(**RED)] * 3, batch="night", labels={"set": "a"}))
    assert run("cancel", "--batch", "night").out == (
        "3 canceled; 0 run and leave at their next step boundary\n"
    )
    assert run("retry", "--label", "set=a").out == "3 queued again\n"
    assert {job.refresh().state for job in jobs} == {State.QUEUED}
    assert {job.id for job in client.jobs(batch="night")} == {job.id for job in jobs}
    shown = [
        json.loads(line) for line in run("jobs", "--batch", "night", "--json").out.splitlines()
    ]
    assert {job["batch"] for job in shown} == {"night"}


def test_jobs_are_tried_again_by_their_error_code(run: Run, client: Client, hand: Hand) -> None:
    first, second = (client.submit(Text2Img(**RED)).id for _ in range(2))
    hand.fail(code="device_failed", message="no memory")
    hand.fail(code="invalid_model")
    assert json.loads(run("retry", "--code", "device_failed", "--json").out) == {"id": first}
    assert run("retry", first, second).out == (
        "1 queued again; 1 had neither failed nor been canceled\n"
    )
    assert "device_failed: no memory" in run("show", first).out


@pytest.mark.parametrize("command", ["cancel", "retry"])
def test_an_order_for_no_job_is_refused(run: Run, command: str) -> None:
    assert run(command).status == 2
    assert "give their ids, --label or --batch" in run(command).err
    assert run(command, "0" * 26).status == 4
    assert run(command, "--label", "set").status == 2


def test_python_cancels_and_tries_again(client: Client, hand: Hand) -> None:
    job = client.submit(Text2Img(**RED))
    assert job.cancel().outcome == "canceled"
    assert client.retry(job.id) == [job.id]
    hand.claim()
    assert [answer.outcome for answer in client.cancel(job.id)] == ["leaving"]
    with pytest.raises(NotFound):
        client.cancel("0" * 26)


def test_jobs_submitted_together_are_a_batch_of_their_own(client: Client) -> None:
    first, second = ([j.record.batch for j in client.submit_many([Text2Img(**RED)] * 40)]
                     for _ in range(2))  # fmt: skip
    assert len(set(first)) == len(set(second)) == 1
    assert first[0] != second[0]
    assert client.submit(Text2Img(**RED)).record.batch is None


def test_a_job_runs_when_its_time_has_come_and_not_after_its_deadline(
    run: Run, client: Client
) -> None:
    options = ["text2img", "-p", "red", "--no-wait", "--json"]
    ended = run(*options, "--run-at", "2h", "--deadline", "2999-01-31T18:00+01:00")
    job = json.loads(ended.out)
    assert job["deadline"] == "2999-01-31T17:00:00.000+00:00"
    until = datetime.fromisoformat(job["run_at"]) - datetime.now(UTC)
    assert timedelta(minutes=119) < until <= timedelta(hours=2)
    assert client.ledger.due("default") == 0
    shown = run("show", job["id"]).out
    assert "runs from" in shown
    assert "deadline" in shown

    refused = run(*options, "--run-at", "2h", "--deadline", "1h")
    assert refused.status == 2
    assert "must be after run_at" in refused.err


def test_times_are_durations_or_iso() -> None:
    now = datetime.now(UTC)
    for text, seconds in {"90s": 90, "10m": 600, "2h": 7200, "0.5d": 43200}.items():
        assert abs((read_time("run_at", text) - now).total_seconds() - seconds) < 5
    assert read_time("run_at", "2026-01-31T18:00Z") == datetime(2026, 1, 31, 18, tzinfo=UTC)
    local = datetime(2026, 1, 31, 18).astimezone(UTC)
    assert read_time("run_at", "2026-01-31 18:00") == local
    for text in ("soon", "10", "1w", "9" * 20 + "d"):
        with pytest.raises(InvalidSpec, match=r"run_at: .* is no time"):
            read_time("run_at", text)
