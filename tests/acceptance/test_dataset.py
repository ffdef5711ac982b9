"""A dataset from its source to its account, with a real worker."""

import time
from pathlib import Path

import pytest
from PIL import Image

from producer import Client
from producer.datasets import make_recipe, submit_dataset
from producer.datasets.account import make_account
from producer.datasets.pilot import contact_sheet, estimate, pilot_rows
from producer.datasets.verify import verify
from storage.batches import Batch, Status
from tests.acceptance.conftest import PATIENCE, Mill

RECIPE = make_recipe(
    {"model": "tiny", "prompt": "{prompt}", "strength": 0.5, "num_inference_steps": 4}
)


@pytest.fixture(scope="module")
def client(mill: Mill) -> Client:
    return Client(mill.settings)


def wait(client: Client, batch: Batch, held: int = 0) -> None:
    deadline = time.monotonic() + PATIENCE
    while client.batches.counts(batch.id).open > held:
        assert time.monotonic() < deadline, client.batches.counts(batch.id)
        time.sleep(0.1)


@pytest.mark.usefixtures("worker")
def test_a_folder_goes_in_a_pilot_runs_and_every_row_is_accounted_for(
    client: Client, mill: Mill, tmp_path: Path, gradient: Image.Image
) -> None:
    for number in range(5):
        gradient.rotate(60 * number).save(tmp_path / f"{number}.png")
        (tmp_path / f"{number}.txt").write_text(f"house number {number}")
    (tmp_path / "broken.png").write_bytes((tmp_path / "0.png").read_bytes()[:99])
    (tmp_path / "broken.txt").write_text("a house")

    batch = submit_dataset(client, str(tmp_path), RECIPE, pilot=2)
    wait(client, batch, held=3)
    sheet = contact_sheet(client, pilot_rows(client, batch))
    found = estimate(client, batch)
    assert sheet is not None
    assert (found.measured, found.held) == (2, 3)
    assert found.seconds
    assert found.bytes

    client.batches.release(batch.id)
    wait(client, batch)
    account = make_account(client, batch)
    assert account.is_complete
    assert account.counts.statuses[Status.SUCCEEDED] == 5
    assert account.counts.codes == {"invalid_image": 1}

    (compared,) = verify(client, batch, 1)
    # The row ran with others at its side, which only rounding may show.
    assert compared.difference is not None
    assert compared.difference <= 1

    again = submit_dataset(client, str(tmp_path), RECIPE)
    assert client.batches.counts(again.id).statuses[Status.SKIPPED] == 5
