"""From a spec to a stored picture: a real broker, bucket, database and worker process."""

import json
from subprocess import Popen

import numpy as np
import pytest
from PIL import Image

from storage.jobs import Job, State
from tests.acceptance.conftest import Mill
from tests.reference.tiny_lora import write_kohya
from worker.diffusion import Pipeline

pytestmark = pytest.mark.usefixtures("worker")

RED = {"kind": "text2img", "prompt": "a red house"}
BLUE = {"kind": "img2img", "prompt": "a blue house", "strength": 0.5}


@pytest.fixture(scope="module")
def pipe(mill: Mill) -> Pipeline:
    return Pipeline.from_pretrained(mill.home / "tiny")


def test_an_img2img_job_gives_the_pipelines_own_picture(
    mill: Mill, gradient: Image.Image, pipe: Pipeline
) -> None:
    key = mill.upload(gradient)
    step = {**BLUE, "image": key, "negative_prompt": "sea", "guidance_scale": 5.0}
    job = mill.wait(mill.submit(step))
    assert job.state is State.SUCCEEDED, job
    assert (job.attempt, job.error) == (1, None)

    (expected,) = pipe(
        "a blue house", gradient, negative_prompt="sea", strength=0.5, guidance_scale=5.0,
        num_inference_steps=6, seed=3,
    )  # fmt: skip
    result = mill.picture(job.artifact)
    assert np.array_equal(np.asarray(result), np.asarray(expected))


def test_a_result_says_how_it_was_made(mill: Mill, gradient: Image.Image) -> None:
    key = mill.upload(gradient)
    job = mill.wait(mill.submit({**BLUE, "image": key, "prompt": "ein Häuschen 家"}))
    text = mill.picture(job.artifact).info
    full = json.loads(text["latentmill"])
    assert full["spec"] == job.spec.model_dump(mode="json")
    assert full["inputs"] == [key]
    assert full["device"] == "cpu"
    assert full["versions"]["mindspore"] == "2.8.0"
    first, *_, last = text["parameters"].splitlines()
    assert first == "ein Häuschen 家"
    assert last.startswith(
        "Steps: 6, Sampler: PNDMScheduler, CFG scale: 7.5, Seed: 3, Size: 64x64, Model: tiny,"
        " Denoising strength: 0.5"
    )


def test_a_chain_hands_over_the_latent_and_runs_in_order(mill: Mill, pipe: Pipeline) -> None:
    job = mill.wait(mill.submit(RED, BLUE))
    assert job.state is State.SUCCEEDED, job
    first, second = job.steps
    assert (first.carry_kind, first.artifact) == ("latent", None)
    assert (first.details["from"], second.details["from"]) == ("prompt", "latent")
    assert first.finished_at is not None
    assert second.finished_at is not None
    assert first.finished_at <= second.finished_at

    (latent,) = pipe("a red house", num_inference_steps=6, seed=3, output_type="latent")
    (expected,) = pipe("a blue house", latent, strength=0.5, num_inference_steps=6, seed=3)
    assert np.array_equal(np.asarray(mill.picture(job.artifact)), np.asarray(expected))


def test_what_was_handed_over_is_removed_when_the_job_has_ended(mill: Mill) -> None:
    job = mill.wait(mill.submit(RED, BLUE))
    carry = job.steps[0].carry
    assert carry is not None
    mill.wait(job.id, lambda _: not mill.objects.exists(carry))


def test_steps_with_other_vaes_hand_over_a_picture_and_say_so(mill: Mill) -> None:
    job = mill.wait(mill.submit(RED, {**BLUE, "model": "other"}))
    assert job.state is State.SUCCEEDED, job
    assert job.steps[0].carry_kind == "image"
    assert job.steps[1].details["from"] == "image"


def test_every_steps_picture_is_kept_on_request(mill: Mill) -> None:
    job = mill.wait(mill.submit(RED, BLUE, keep_steps=True))
    pictures = [mill.picture(step.artifact) for step in job.steps]
    assert [p.size for p in pictures] == [(64, 64), (64, 64)]
    assert not np.array_equal(np.asarray(pictures[0]), np.asarray(pictures[1]))


def test_progress_is_seen_while_a_job_runs(mill: Mill) -> None:
    job_id = mill.submit({**RED, "num_inference_steps": 100})
    seen: set[int] = set()

    def watch(job: Job) -> bool:
        if job.progress_total:
            assert job.progress_total == 101
            seen.add(job.progress_done)
        return job.state is State.SUCCEEDED

    job = mill.wait(job_id, watch)
    # At most a few writes a second, at least one.
    seconds = job.steps[0].details["seconds"]
    assert seconds / 1.0 - 2 <= len(seen) <= seconds * 4 + 2


@pytest.mark.parametrize(
    ("step", "code", "sentence"),
    [
        ({"model": "broken"}, "invalid_model", "model_index.json"),
        ({"model": "nobody"}, "unknown_model", "'nobody' is not known"),
        ({"image": f"inputs/{'0' * 64}.png"}, "invalid_image", "is not in the bucket"),
        ({"width": 64, "height": 64, "scheduler": {"class": "DDIMScheduler", "x": 1}},
         "invalid_spec", "no field 'x'"),
    ],
)  # fmt: skip
def test_what_is_wrong_for_good_fails_at_once_with_its_reason(
    mill: Mill, gradient: Image.Image, step: dict[str, object], code: str, sentence: str
) -> None:
    image = mill.upload(gradient)
    job = mill.wait(mill.submit({**BLUE, "image": image, **step}))
    assert (job.state, job.error_code, job.attempt) == (State.FAILED, code, 1)
    assert job.error is not None
    assert sentence in job.error


def test_a_broken_picture_fails_and_its_neighbours_succeed(
    mill: Mill, gradient: Image.Image
) -> None:
    good = mill.upload(gradient)
    bad = good[:-5].replace("inputs/", "inputs/broken-") + ".png"
    mill.objects.put(bad, b"\x89PNG\r\n\x1a\n but no more", "image/png")
    jobs = [mill.submit({**BLUE, "image": key}) for key in (good, bad, good)]
    ended = [mill.wait(job) for job in jobs]
    assert [job.state for job in ended] == [State.SUCCEEDED, State.FAILED, State.SUCCEEDED]
    assert ended[1].error_code == "invalid_image"


def test_a_long_prompt_is_cut_with_a_warning(mill: Mill) -> None:
    job = mill.wait(mill.submit({**RED, "prompt": "house " * 100}))
    (warning,) = job.steps[0].details["warnings"]
    assert "77 tokens" in warning


def test_work_whose_invitation_was_lost_is_found(mill: Mill, worker: Popen[bytes]) -> None:
    job = mill.wait(mill.submit(RED, invited=False))
    assert job.state is State.SUCCEEDED


def test_a_lora_of_the_workers_folder_changes_the_picture(mill: Mill, pipe: Pipeline) -> None:
    (mill.home / "loras" / "styles").mkdir(parents=True)
    file = write_kohya(mill.home / "loras" / "styles" / "ink.safetensors")
    lora = {"path": "styles/ink.safetensors", "weight": 0.8}
    job, plain = mill.wait(mill.submit({**RED, "loras": [lora]})), mill.wait(mill.submit(RED))
    (expected,) = Pipeline.from_pretrained(mill.home / "tiny", loras=[(file, 0.8)])(
        "a red house", num_inference_steps=6, seed=3
    )
    assert np.array_equal(np.asarray(mill.picture(job.artifact)), np.asarray(expected))
    assert not np.array_equal(np.asarray(mill.picture(plain.artifact)), np.asarray(expected))


@pytest.mark.parametrize("path", ["styles/none.safetensors", "../tiny/unet/config.json"])
def test_a_lora_outside_the_workers_folder_is_refused(mill: Mill, path: str) -> None:
    job = mill.wait(mill.submit({**RED, "loras": [{"path": path}]}))
    assert (job.state, job.error_code, job.attempt) == (State.FAILED, "invalid_spec", 1)
    assert job.error == f"loras: {path!r} is no file of the workers' folder for LoRAs"
