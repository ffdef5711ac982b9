"""Take the README's pictures of the web page: a real stack and worker, in a real Chromium.

Run from the repository root: `python -m docs.pictures.page [FOLDER]`. With a folder, every view
goes there too, light and dark, on a desk and on a phone.
"""

import csv
import io
import shutil
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page

from producer import Client, Img2Img
from producer.commands.page import running_page
from producer.commands.services import running_mill
from producer.datasets.recipe import read_recipe
from producer.datasets.submit import submit_dataset
from tests.producer.web.browser import running_browser

HERE = Path(__file__).parent
SAMPLES = Path("producer/samples")
THINGS = ("red-apple", "cat-face", "automobile")
DESK, PHONE = (1180, 850), (390, 844)
SCHEMES = ("light", "dark")


def main(folder: Path | None) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(temporary) / "mill"
        with running_mill(home, slots=8) as (settings, _), running_page(settings, 8420) as url:
            client = Client(settings)
            batch = enter_batch(client, home)
            chain = client.submit(
                [step("red-apple", "comic"), step(None, "pixel art")], keep_steps=True
            )
            chain.wait()
            with running_browser() as browser:
                desk = [
                    picture(browser, url, f"/jobs/{chain.id}", "light"),
                    picture(browser, url, f"/batches/{batch}", "dark"),
                ]
                beside(desk).save(HERE / "page.png", optimize=True)
                denoising(browser, url, client).save(HERE / "page-live.png", optimize=True)
                if folder is not None:
                    every_view(browser, url, folder, chain.id, batch)


def step(thing: str | None, style: str, **values: object) -> Img2Img:
    image = SAMPLES / f"{thing}.png" if thing else None
    prompt = f"{(thing or 'red-apple').replace('-', ' ')}, {style} style"
    return Img2Img(model="demo", image=image, prompt=prompt, strength=0.55, seed=7, **values)  # type: ignore[arg-type]


def enter_batch(client: Client, folder: Path) -> str:
    """Variations of the samples, and two rows that cannot become jobs."""
    dataset = folder / "styles"
    dataset.mkdir()
    for thing in THINGS:
        shutil.copy(SAMPLES / f"{thing}.png", dataset)
    with (dataset / "list.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("image", "prompt", "strength", "seed"))
        for number in range(48):
            thing, style = THINGS[number % 3], ("comic", "pixel art")[number // 3 % 2]
            prompt = f"{thing.replace('-', ' ')}, {style} style"
            rows.writerow((f"{thing}.png", prompt, 0.45 + 0.02 * (number // 6), number))
        rows.writerow(("lost.png", "a ghost, comic style", 0.5, 1))
        rows.writerow(("cat-face.png", "cat face, comic style", 1.5, 1))
    recipe = folder / "recipe.yaml"
    recipe.write_text("model: demo\nnum_inference_steps: 20\n")
    return submit_dataset(client, str(dataset / "list.csv"), read_recipe(recipe), name="styles").id


def opened(browser: Browser, url: str, view: str, scheme: str, size: tuple[int, int]) -> Page:
    page = browser.new_page(
        viewport={"width": size[0], "height": size[1]},
        color_scheme=scheme,  # type: ignore[arg-type]
        device_scale_factor=2,
    )
    page.goto(f"{url}&{view}")
    page.wait_for_selector("main h1")
    return page


def picture(
    browser: Browser, url: str, view: str, scheme: str, size: tuple[int, int] = DESK
) -> Image.Image:
    page = opened(browser, url, view, scheme, size)
    page.wait_for_timeout(2000)  # pictures come with a soft fade
    return taken(page)


def denoising(browser: Browser, url: str, client: Client) -> Image.Image:
    """The stage of a running job at three moments, and when it is done."""
    job = client.submit(step("automobile", "comic", num_inference_steps=400))
    page = opened(browser, url, f"/jobs/{job.id}", "light", (700, 900))
    page.wait_for_selector(".stage img.shown:not(.behind)", timeout=120_000)
    frames, bar = [], page.get_by_role("progressbar")
    while bar.is_visible():
        frames.append(stage(page))
    page.wait_for_timeout(2000)
    last = len(frames) - 2  # the very last may show the end already
    some = [frames[last * part // 2] for part in range(3)]
    return beside([*some, stage(page)], 240)


def stage(page: Page) -> Image.Image:
    """The square in the middle, where the picture is."""
    shot = Image.open(io.BytesIO(page.locator(".stage").screenshot())).convert("RGB")
    left = (shot.width - shot.height) // 2
    return shot.crop((left, 0, left + shot.height, shot.height))


def every_view(browser: Browser, url: str, folder: Path, job: str, batch: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    views = {
        "submit": "/submit", "again": f"/submit?from={job}", "job": f"/jobs/{job}",
        "jobs": "/jobs", "batches": "/batches", "batch": f"/batches/{batch}",
        "workers": "/workers", "schedules": "/schedules",
    }  # fmt: skip
    for scheme in SCHEMES:
        for kind, size in (("desk", DESK), ("phone", PHONE)):
            for name, view in views.items():
                shot = picture(browser, url, view, scheme, size)
                shot.save(folder / f"{name}-{scheme}-{kind}.png")


def taken(page: Page) -> Image.Image:
    shot = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    page.close()
    return shot


def beside(pictures: list[Image.Image], width: int = 720, gap: int = 12) -> Image.Image:
    """In a row, each so wide, in few enough colours for a small file."""
    small = [
        each.resize((width, each.height * width // each.width), Image.Resampling.LANCZOS)
        for each in pictures
    ]
    whole = Image.new("RGB", (len(small) * (width + gap) - gap, small[0].height), "white")
    for index, each in enumerate(small):
        whole.paste(each, (index * (width + gap), 0))
    return whole.quantize(256, kmeans=1, dither=Image.Dither.NONE)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
