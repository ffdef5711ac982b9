"""Makes the README's pictures, with the bundled checkpoint.

Run as `.venv/bin/python docs/pictures/make.py`.
"""

from pathlib import Path
from typing import Any

from PIL import Image

from producer.grid import make_gif, make_grid
from worker.diffusion import Pipeline

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
STRENGTHS, GUIDANCES = (0.4, 0.6, 1.0), (0.1, 5.0, 10.0)
CHAIN = ("red apple", "red apple, comic style", "red apple, pixel art style")
SETTINGS: dict[str, Any] = {"num_inference_steps": 30, "seed": 7}


def main() -> None:
    pipe = Pipeline.from_pretrained(ROOT / "worker" / "checkpoints" / "demo")
    names = sorted(path.stem for path in (ROOT / "producer" / "samples").glob("*.png"))
    apple = sample("red-apple")

    def restyle(image: Any, prompt: str, **options: Any) -> Any:
        return pipe(prompt, image, **{**SETTINGS, **options})[0]

    before_after, captions = [], []
    for name in names:
        prompt = f"{name.replace('-', ' ')}, comic style"
        before_after += [sample(name), restyle(sample(name), prompt, strength=0.6)]
        captions += ["input", prompt]
    make_grid(before_after, captions, columns=len(captions), side=144).save(HERE / "demo.png")

    strengths = [restyle(apple, "red apple, comic style", strength=s) for s in STRENGTHS]
    guidances = [
        restyle(apple, "red apple, comic style", strength=0.8, guidance_scale=g) for g in GUIDANCES
    ]
    grid = [apple, *strengths, apple, *guidances]
    labels = ["input", *(f"strength {s}" for s in STRENGTHS)]
    labels += ["input", *(f"guidance_scale {g:g}" for g in GUIDANCES)]
    make_grid(grid, labels, columns=4, side=192).save(HERE / "strength-and-guidance.png")

    chain, handed_over = [apple], apple
    for prompt in CHAIN:
        handed_over = restyle(handed_over, prompt, strength=0.6, output_type="latent")
        chain.append(pipe.decode_picture(handed_over))
    make_grid(chain, ["input", *CHAIN], columns=4, side=192).save(HERE / "chain.png")
    (HERE / "chain.gif").write_bytes(make_gif(chain, side=192))


def sample(name: str) -> Image.Image:
    with Image.open(ROOT / "producer" / "samples" / f"{name}.png") as image:
        return image.convert("RGB")


if __name__ == "__main__":
    main()
