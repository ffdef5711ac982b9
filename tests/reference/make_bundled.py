"""Writes bundled.npz: what the reference's pipelines make of the bundled checkpoint.

Needs diffusers (requirements.txt); run as `python tests/reference/make_bundled.py`.
"""

from typing import Any

import numpy as np
from make_pipelines import HERE, reference_pipeline, results
from PIL import Image

ROOT = HERE.parents[1]
CHECKPOINT = ROOT / "worker" / "checkpoints" / "demo"


def cases() -> dict[str, dict[str, Any]]:
    """Arguments of each run, as `make_pipelines.arguments` completes them."""
    with Image.open(ROOT / "producer" / "samples" / "red-apple.png") as sample:
        apple = sample.convert("RGB")
    settings = {"num_inference_steps": 20, "guidance_scale": 4.0, "seed": 7}
    return {
        "text": {**settings, "prompt": "red apple"},
        "image": {
            **settings,
            "prompt": "red apple, comic style",
            "negative_prompt": "pixel art style",
            "image": apple,
            "strength": 0.6,
        },
    }


def main() -> None:
    np.savez_compressed(HERE / "bundled.npz", **results(reference_pipeline(CHECKPOINT), cases()))


if __name__ == "__main__":
    main()
