"""What the page shows of a ledger; no worker is needed."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from producer import Client
from producer.datasets.recipe import read_recipe
from producer.datasets.submit import submit_dataset
from storage.jobs import Selection
from storage.schedules import Schedules
from storage.spec import parse_spec
from tests.acceptance.conftest import Mill
from tests.producer.conftest import Hand
from tests.producer.web.conftest import Site

OpenPage = Callable[..., Page]
VIEWS = ("#/submit", "#/jobs", "#/batches", "#/workers", "#/schedules")
STEP = {"kind": "text2img", "model": "tiny", "prompt": "one of many"}


def refused(faults: list[str], status: int) -> None:
    """Chromium itself tells of each request that is refused; here that was to be."""
    assert faults
    assert all(f"with a status of {status} " in fault for fault in faults)
    faults.clear()


@pytest.fixture(scope="module")
def many(mill: Mill) -> list[str]:
    """Ids of 1000 jobs that no worker takes, newest first."""
    specs = (parse_spec({"steps": [{**STEP, "seed": n}]}) for n in range(1000))
    made = mill.ledger.submit(specs, pool="nobody", batch="many")
    return [submitted.id for submitted in made][::-1]


@pytest.fixture(scope="module")
def apples(mill: Mill, picture_file: Path) -> str:
    """A batch of three rows that are jobs, one of them done, and three that could not be."""
    folder = picture_file.parent
    lines = [{"file_name": name, "prompt": "apple"} for name in (picture_file.name, "lost.png")]
    (folder / "apples.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (folder / "recipe.yaml").write_text("model: tiny\nstrength: 0.5\nvariants: {seed: [1, 2, 3]}\n")
    recipe = read_recipe(folder / "recipe.yaml")
    made = submit_dataset(
        Client(mill.settings), str(folder / "apples.jsonl"), recipe, name="apples"
    )
    Hand(mill.ledger, mill.objects).succeed()
    return made.id


def test_a_long_list_is_paged_and_keeps_few_elements(open_page: OpenPage, many: list[str]) -> None:
    page = open_page("#/jobs?batch=many")
    rows = page.locator(".rows li")
    last = page.locator(f'a[href="#/jobs/{many[-1]}"]')
    for _ in range(40):
        assert rows.count() < 60
        page.mouse.wheel(0, 20_000)
        page.wait_for_timeout(100)
        if last.is_visible():
            break
    expect(last).to_be_visible()
    last.click()
    expect(page.get_by_text("Waits for a worker").first).to_be_visible()


def test_the_list_shows_changes_by_itself(open_page: OpenPage, mill: Mill, many: list[str]) -> None:
    page = open_page("#/jobs?state=queued&batch=many")
    first = page.locator(".rows a").first
    expect(first).to_have_attribute("href", f"#/jobs/{many[0]}")
    mill.ledger.cancel(Selection(ids=(many[0],)))
    expect(first).to_have_attribute("href", f"#/jobs/{many[1]}")
    page.get_by_role("radio", name="canceled").check()
    expect(page.locator(".rows a").first).to_have_attribute("href", f"#/jobs/{many[0]}")


def test_what_the_server_refuses_stands_in_its_words_by_the_field(
    open_page: OpenPage, faults: list[str]
) -> None:
    page = open_page()
    page.get_by_text("More", exact=True).click()
    page.get_by_label("Width").fill("70")
    page.get_by_role("button", name="Submit").click()
    expect(page.get_by_role("alert")).to_contain_text("steps.0.width")
    field = page.get_by_label("Width")
    expect(field).to_have_attribute("aria-invalid", "true")
    expect(field).to_be_focused()
    refused(faults, 422)


def test_a_filter_that_cannot_be_is_refused_beside_its_field(
    open_page: OpenPage, faults: list[str]
) -> None:
    page = open_page("#/jobs")
    field = page.get_by_label("Only with this label")
    field.fill("night")
    field.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("not of the form name=value")
    expect(field).to_have_value("night")
    expect(field).to_be_focused()
    refused(faults, 422)


def test_a_batch_shows_its_failures_and_pictures_and_takes_orders(
    open_page: OpenPage, apples: str
) -> None:
    page = open_page("#/batches")
    page.get_by_role("link", name="apples").click()
    told = page.get_by_role("region", name="Progress").get_by_role("status")
    expect(told).to_have_text("1 of 6 rows done, 3 failed")
    expect(page.get_by_role("region", name="Failures")).to_contain_text("lost.png")
    expect(page.get_by_role("region", name="Contact sheet").get_by_role("link")).to_have_count(1)
    page.get_by_role("button", name="Cancel the rest").click()
    expect(told).to_have_text("1 of 6 rows done, 3 failed, 2 canceled")
    expect(page.get_by_text("2 jobs canceled.")).to_be_visible()
    page.get_by_role("button", name="Retry what failed").click()
    expect(told).to_have_text("1 of 6 rows done, 3 failed")
    page.get_by_role("button", name="Cancel the rest").click()


def test_a_schedule_is_paused_and_run_now(open_page: OpenPage, mill: Mill) -> None:
    Schedules(mill.ledger.database).add(
        name="nightly", cron="0 2 * * *", source="/nowhere", recipe={"model": "tiny"}
    )
    page = open_page("#/schedules")
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_text("when it is resumed")).to_be_visible()
    expect(page.get_by_role("button", name="Resume")).to_be_focused()
    page.get_by_role("button", name="Run now").click()
    expect(page.get_by_role("cell", name="waiting")).to_be_visible()


def test_a_key_that_is_not_known_is_asked_for(
    open_page: OpenPage, site: Site, faults: list[str]
) -> None:
    page = open_page()
    page.evaluate("localStorage.setItem('latentmill.key', 'lm_wrong')")
    page.goto(f"{site.url}/#/jobs")
    expect(page.get_by_role("alert")).to_contain_text("not known")
    page.get_by_label("API key").fill(site.key)
    page.get_by_role("button", name="Open the page").click()
    expect(page.get_by_role("heading", name="Jobs")).to_be_visible()
    refused(faults, 401)


def test_a_job_that_is_not_there_is_said_so(open_page: OpenPage, faults: list[str]) -> None:
    page = open_page()
    page.goto(page.url.partition("#")[0] + "#/jobs/01k9zt3v8m4w2q6n7r5s1x0yab")
    expect(page.get_by_role("alert")).to_contain_text("the ledger has none with this id")
    refused(faults, 404)


def test_the_keyboard_reaches_everything_in_order(open_page: OpenPage) -> None:
    page = open_page("#/workers")
    page.keyboard.press("Tab")
    reached = []
    for _ in range(7):
        reached.append(page.evaluate("document.activeElement.textContent.trim()"))
        page.keyboard.press("Tab")
    assert reached[0] == "Skip to the content"
    assert reached[2:7] == ["Submit", "Jobs", "Batches", "Workers", "Schedules"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_no_view_has_a_fault_that_axe_finds(
    open_page: OpenPage, many: list[str], apples: str, scheme: str, width: int
) -> None:
    page = open_page(color_scheme=scheme, viewport={"width": width, "height": 844}, bypass_csp=True)
    for view in (*VIEWS, f"#/batches/{apples}", f"#/jobs/{many[5]}"):
        page.goto(page.url.partition("#")[0] + view)
        page.wait_for_timeout(400)
        found = Axe().run(page).response["violations"]
        told = [(rule["id"], [node["html"] for node in rule["nodes"]]) for rule in found]
        assert told == [], f"{view}: {json.dumps(told, indent=1)}"
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), view
