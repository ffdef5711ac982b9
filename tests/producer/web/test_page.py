"""What people do on the page, with a real worker behind it."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from storage.spec import SCHEDULERS
from tests.acceptance.conftest import Mill
from tests.producer.web.conftest import Site

pytestmark = pytest.mark.usefixtures("worker")

#: Milliseconds: a worker that begins has to compile its model.
PATIENCE = 120_000
OpenPage = Callable[..., Page]


def fill_in(page: Page, prompt: str, steps: int, step: int = 0) -> None:
    card = page.locator("li.card").nth(step)
    card.get_by_label("Prompt", exact=True).fill(prompt)
    card.get_by_label("Model").select_option("tiny")
    card.get_by_text("More", exact=True).click()
    card.get_by_label("Denoising steps").fill(str(steps))


def test_a_job_is_submitted_watched_and_compared_and_another_canceled(
    open_page: OpenPage, site: Site, picture_file: Path
) -> None:
    page = open_page()
    assert site.key not in page.url
    page.get_by_label("Choose a picture").set_input_files(picture_file)
    expect(page.get_by_text("gradient.png, 64 × 64")).to_be_visible()  # noqa: RUF001
    fill_in(page, "a red house", 600)
    page.get_by_label("Strength, slider").fill("0.5")
    expect(page.get_by_label("Strength", exact=True)).to_have_value("0.5")
    page.get_by_role("button", name="Submit").click()

    # It is watched without a hand on the page.
    expect(page).to_have_url(re.compile(r"#/jobs/[0-9a-z]{26}$"))
    expect(page.get_by_role("heading", name="a red house")).to_be_visible()
    page.wait_for_selector(".pill.running", timeout=PATIENCE)
    page.wait_for_selector(".stage > img.shown:not(.behind)", timeout=PATIENCE)  # its preview
    bar = page.get_by_role("progressbar")
    expect(bar).to_have_attribute("aria-valuenow", re.compile("^[1-9]"), timeout=PATIENCE)
    page.wait_for_selector(".pill.succeeded", timeout=PATIENCE)
    expect(page.get_by_text("Strength")).to_be_visible()
    expect(page.get_by_role("status")).to_have_text("The job has succeeded.")

    # Before and after, with a handle that keys move.
    handle = page.get_by_role("slider", name="Before and after")
    expect(page.locator(".compare img.shown")).to_have_count(2)
    handle.press("ArrowRight")
    expect(handle).to_have_value("50.5")
    handle.press("Home")
    expect(handle).to_have_value("0")

    page.get_by_role("link", name="Submit", exact=True).click()
    fill_in(page, "a blue house", 900)
    page.get_by_label("Prompt", exact=True).fill("a house for nobody")
    page.get_by_role("button", name="Submit").click()
    page.get_by_role("button", name="Cancel").click()
    page.wait_for_selector(".pill.canceled")
    expect(page.get_by_role("button", name="Try again")).to_be_visible()


def test_a_chain_is_a_strip_and_is_changed_and_run_again(
    open_page: OpenPage, mill: Mill, picture_file: Path
) -> None:
    page = open_page()
    page.get_by_label("Choose a picture").set_input_files(picture_file)
    fill_in(page, "a red house", 6)
    page.get_by_role("button", name="Add a step").click()
    fill_in(page, "a blue house", 6, step=1)
    page.get_by_role("button", name="Submit the chain of 2").click()
    page.wait_for_selector(".pill.succeeded", timeout=PATIENCE)
    frames = page.get_by_role("list", name="The chain, step by step").get_by_role("button")
    expect(frames).to_have_count(3)
    frames.nth(1).click()
    expect(frames.nth(1)).to_have_attribute("aria-pressed", "true")
    page.wait_for_selector(".stage > img.shown")

    page.get_by_role("link", name="Change and run again").click()
    expect(page.get_by_text("the same picture, 64 × 64")).to_be_visible()  # noqa: RUF001
    cards = page.locator("li.card")
    expect(cards.nth(1).get_by_label("Prompt", exact=True)).to_have_value("a blue house")
    cards.nth(1).get_by_label("Prompt", exact=True).fill("a green house")
    cards.nth(1).get_by_text("More", exact=True).click()
    choice = cards.nth(1).get_by_label("Scheduler")
    offered = choice.locator("option").evaluate_all("all => all.map(({ value }) => value)")
    assert offered == ["", *SCHEDULERS]
    choice.select_option("EulerDiscreteScheduler")
    page.get_by_role("button", name="Submit the chain of 2").click()
    expect(page.get_by_role("heading", name="a green house")).to_be_visible()
    page.wait_for_selector(".pill.succeeded", timeout=PATIENCE)
    before, after = mill.ledger.jobs(limit=2)[::-1]
    assert before.spec is not None
    assert after.spec is not None
    assert after.spec.steps[0] == before.spec.steps[0]
    assert after.spec.steps[1].prompt == "a green house"
    chosen = [step.scheduler for job in (before, after) for step in job.spec.steps]
    assert chosen == [None, None, None, "EulerDiscreteScheduler"]


def test_a_scheduler_with_fields_of_its_own_stays_as_it_was(
    open_page: OpenPage, mill: Mill
) -> None:
    own = {"class": "EulerDiscreteScheduler", "use_karras_sigmas": True}
    asked = {"kind": "text2img", "prompt": "a house", "num_inference_steps": 2, "scheduler": own}
    job = mill.wait(mill.submit(asked))
    page = open_page(f"#/submit?from={job.id}")
    expect(page.get_by_label("Scheduler")).to_have_value("as it was")
    page.get_by_role("button", name="Submit").click()
    page.wait_for_selector(".pill.succeeded", timeout=PATIENCE)
    (again,) = mill.ledger.jobs(limit=1)
    assert again.id != job.id
    assert again.spec is not None
    assert again.spec.steps[0].scheduler == own


def test_a_failed_job_says_why_and_lists_its_attempts(open_page: OpenPage, mill: Mill) -> None:
    job = mill.wait(mill.submit({"kind": "text2img", "prompt": "x", "model": "broken"}))
    page = open_page(f"#/jobs/{job.id}")
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("invalid model")
    expect(alert).to_contain_text("model_index.json")
    expect(page.get_by_role("heading", name="Attempts")).to_be_visible()


def test_a_worker_is_shown_with_what_it_has_loaded(open_page: OpenPage, mill: Mill) -> None:
    mill.wait(mill.submit({"kind": "text2img", "prompt": "a red house"}))
    page = open_page("#/workers")
    card = page.locator("section.card")
    expect(card).to_contain_text("cpu")
    expect(card).to_contain_text("of 2 slots busy")
    expect(card.get_by_role("listitem").filter(has_text="tiny")).to_be_visible()
