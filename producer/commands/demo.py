"""`demo`: the main job from end to end, on a stack that starts and stops with it."""

import time
from contextlib import ExitStack
from importlib.resources import as_file, files
from pathlib import Path
from typing import Annotated

import typer
from PIL import Image

from producer.client import Client
from producer.commands.output import AsJson, print_json, say, watch
from producer.commands.services import running_mill
from producer.grid import make_grid
from producer.request import Img2Img
from storage.errors import NotConfigured
from storage.settings import load_settings

SAMPLE, NAME = "red-apple.png", "red apple"


def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="A folder.")] = Path("demo-out"),
    as_json: AsJson = False,
) -> None:
    """Run an img2img job and a two-step chain with the bundled model, and look at the results.

    Everything that it starts is stopped again. Its data stay in `demo/` of the home, so that
    nothing of it mixes with your own jobs.
    """
    begun = time.monotonic()
    output.mkdir(parents=True, exist_ok=True)
    home = load_settings().home / "demo"
    with ExitStack() as stack:
        sample = stack.enter_context(as_file(files("producer") / "samples" / SAMPLE))
        if not sample.is_file():
            raise NotConfigured(f"the sample picture {SAMPLE} is missing from this installation")
        before = stack.enter_context(Image.open(sample))
        say("Starting a broker, an object store and a worker …", quiet=as_json)
        settings, _ = stack.enter_context(running_mill(home))
        client = Client(settings)
        say("An img2img job, and a chain of two steps that hands over its latent:", quiet=as_json)
        single = client.submit(_restyle("pencil sketch style", sample, strength=0.6))
        chain = client.submit(
            [
                _restyle("comic style", sample, strength=0.6),
                _restyle("pixel art style", None, strength=0.6),
            ],
            keep_steps=True,
        )
        watch([single, chain], quiet=as_json, names=["img2img", "chain"])
        sketch, (first, second) = single.image(), chain.images()
        for name, picture in (("input", before), ("chain-step-1", first)):
            picture.save(output / f"{name}.png")
        single.save(output / "img2img.png")
        chain.save(output / "chain.png")
        captions = ["input", "img2img: pencil sketch", "chain 1: comic", "chain 2: pixel art"]
        grid = make_grid([before, sketch, first, second], captions, columns=4)
        grid.save(output / "grid.png")
        say("Stopping …", quiet=as_json)
    seconds = round(time.monotonic() - begun, 1)
    sheet = str((output / "grid.png").absolute())
    if as_json:
        print_json({"seconds": seconds, "grid": sheet, "img2img": single.id, "chain": chain.id})
        return
    say(f"Done in {seconds:.0f} s. Before and after, side by side:")
    say(sheet)


def _restyle(style: str, image: Path | None, strength: float) -> Img2Img:
    return Img2Img(
        model="demo", image=image, prompt=f"{NAME}, {style}", strength=strength, seed=7,
        guidance_scale=4.0, num_inference_steps=30,
    )  # fmt: skip
