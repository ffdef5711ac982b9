"""Loads and runs checkpoints of published size, with random float16 weights.

    python -m benchmarks.full_size [sd15|sd21|sdxl|sdxl-refiner|kandinsky22] [--dtype float16]
        [--size 512] [--steps 2] [--load-only]

Writes the checkpoint into a temporary folder (2 to 10 GB) from its published configuration, then
measures in a fresh process: seconds to load strictly, peak memory against the weights' size, and
seconds of each stage, first (with compiling) and next.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

ROOT = Path(__file__).parents[1]
PUBLISHED = ROOT / "tests" / "reference" / "published"
sys.path.insert(0, str(ROOT / "tests" / "reference"))

EULER = {
    "_class_name": "EulerDiscreteScheduler", "beta_end": 0.012, "beta_schedule": "scaled_linear",
    "beta_start": 0.00085, "num_train_timesteps": 1000, "steps_offset": 1,
    "timestep_spacing": "leading",
}  # fmt: skip
DDPM = {
    "_class_name": "DDPMScheduler", "beta_end": 0.012, "beta_schedule": "linear",
    "beta_start": 0.00085, "clip_sample": False, "num_train_timesteps": 1000,
    "sample_max_value": 2.0, "thresholding": True, "variance_type": "learned_range",
}  # fmt: skip
UNCLIP = {
    "_class_name": "UnCLIPScheduler", "clip_sample": True, "clip_sample_range": 5.0,
    "num_train_timesteps": 1000, "prediction_type": "sample", "variance_type": "fixed_small_log",
}  # fmt: skip
#: The pipeline's class, its scheduler, and what else `model_index.json` says.
FAMILIES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "sd15": ("StableDiffusionPipeline", EULER, {}),
    "sd21": ("StableDiffusionPipeline", EULER | {"prediction_type": "v_prediction"}, {}),
    "sdxl": ("StableDiffusionXLPipeline", EULER, {"force_zeros_for_empty_prompt": True}),
    "sdxl-refiner": (
        "StableDiffusionXLImg2ImgPipeline",
        EULER,
        {"force_zeros_for_empty_prompt": False, "requires_aesthetics_score": True},
    ),
    "kandinsky22": ("KandinskyV22Pipeline", DDPM, {}),
    "kandinsky22-prior": ("KandinskyV22PriorPipeline", UNCLIP, {}),
}
#: Image encoders are used with the prior alone.
PROCESSOR = {"crop_size": 224, "size": 224}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", nargs="?", default="sd15", choices=list(FAMILIES)[:-1])
    parser.add_argument("--dtype", default="float32", choices=("float32", "float16"))
    parser.add_argument("--size", type=int, default=512, help="pixels a side")
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--load-only", action="store_true")
    parser.add_argument(
        "--folder", type=Path, help="the checkpoint: written there if it is not there, and kept"
    )
    given = parser.parse_args()
    if given.folder and (given.folder / "model_index.json").exists():
        measure(given)
        return
    with tempfile.TemporaryDirectory() as temporary:
        target = given.folder or Path(temporary) / given.name
        for name in [given.name, *(["kandinsky22-prior"] if given.name == "kandinsky22" else [])]:
            place = str(target if name == given.name else target.with_name(name))
            code = f"from benchmarks.full_size import write; write({name!r}, {place!r})"
            subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
        again = [*sys.argv[1:], "--folder", str(target)]
        subprocess.run([sys.executable, "-m", "benchmarks.full_size", *again], check=True, cwd=ROOT)


def write(name: str, path: str) -> None:
    """A checkpoint with drawn float16 weights, in the published layout."""
    from tiny import write_tokenizer

    folder = Path(path)
    configs: dict[str, dict[str, Any]] = json.loads((PUBLISHED / f"{name}.json").read_text())
    kind, scheduler, extra = FAMILIES[name]
    index: dict[str, Any] = {"_class_name": kind, "_diffusers_version": "0.30.0", **extra}
    folder.mkdir(parents=True, exist_ok=True)
    for component, config in configs.items():
        library = "diffusers" if "_class_name" in config else "transformers"
        index[component] = [library, config.get("_class_name") or config["architectures"][0]]
        write_json(folder / component / "config.json", config)
        stem = "diffusion_pytorch_model" if library == "diffusers" else "model"
        tensors = {key: draw(shape) for key, shape in shapes(component, config).items()}
        save_file(tensors, folder / component / f"{stem}.safetensors")
        if component.startswith("text_encoder"):
            tokenizer = component.replace("text_encoder", "tokenizer")
            index[tokenizer] = ["transformers", "CLIPTokenizer"]
            write_tokenizer(folder / tokenizer)
        if component == "image_encoder":
            index["image_processor"] = ["transformers", "CLIPImageProcessor"]
            write_json(folder / "image_processor" / "preprocessor_config.json", PROCESSOR)
    index["scheduler"] = ["diffusers", scheduler["_class_name"]]
    write_json(folder / "scheduler" / "scheduler_config.json", scheduler)
    write_json(folder / "model_index.json", index)


def shapes(component: str, config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """The weights' names and shapes, which a test compares with the reference's."""
    from worker.diffusion.models import (
        clip_text,
        clip_vision,
        kandinsky_unet,
        movq,
        prior,
        unet,
        vae,
    )

    kinds = {
        "UNet2DConditionModel": (unet.UNet, unet.UNetConfig),
        "AutoencoderKL": (vae.Vae, vae.VaeConfig),
        "VQModel": (movq.Movq, movq.MovqConfig),
        "PriorTransformer": (prior.Prior, prior.PriorConfig),
        "CLIPTextModel": (clip_text.ClipTextModel, clip_text.ClipTextConfig),
        "CLIPTextModelWithProjection": (
            clip_text.ClipTextModelWithProjection,
            clip_text.ClipTextConfig,
        ),
        "CLIPVisionModelWithProjection": (
            clip_vision.ClipVisionModelWithProjection,
            clip_vision.ClipVisionConfig,
        ),
    }
    name = config.get("_class_name") or config["architectures"][0]
    if config.get("encoder_hid_dim_type") == "image_proj":
        build, read = kandinsky_unet.KandinskyUNet, kandinsky_unet.KandinskyUNetConfig
    else:
        build, read = kinds[name]
    model = build(read.from_dict(config))
    cells = [model.encoder, model.decoder] if component in ("vae", "movq") else [model]
    return {key: p.shape for cell in cells for key, p in cell.parameters_and_names()}


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1), "utf-8")


def draw(shape: tuple[int, ...]) -> np.ndarray:
    if len(shape) == 1:
        return np.ones(shape, np.float16)
    fan_in = int(np.prod(shape[1:]))
    numbers = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    return (numbers / np.float32(fan_in**0.5)).astype(np.float16)


def measure(given: argparse.Namespace) -> None:
    from PIL import Image

    from worker.diffusion import Pipeline

    options: dict[str, Any] = {}
    folders = [given.folder]
    if given.name == "kandinsky22":
        folders.append(given.folder.with_name("kandinsky22-prior"))
        options["prior"] = folders[1]
    files = [file for folder in folders for file in folder.glob("*/*.safetensors")]
    width = 2 if given.dtype == "float32" else 1
    weights = width * sum(file.stat().st_size for file in files) / 1e9
    baseline = memory("VmRSS")
    print(f"{given.name} as {given.dtype}: {weights:.2f} GB of weights", flush=True)
    start = time.perf_counter()
    pipe = Pipeline.from_pretrained(given.folder, dtype=given.dtype, **options)
    print(f"load: {time.perf_counter() - start:.1f} s", flush=True)
    report_peak("after loading", baseline, weights)
    if given.load_only:
        return
    picture = Image.new("RGB", (given.size, given.size), "red")
    run = {"strength": 1.0, "num_inference_steps": given.steps}
    for name in ("first", "next"):
        begun = time.perf_counter()
        row = pipe.begin("a red house", picture, **run)
        print(f"prepare, {name}: {time.perf_counter() - begun:.1f} s", flush=True)
        while not row.done:
            begun = time.perf_counter()
            pipe.step([row])
            print(
                f"step {row.taken} of {row.total}: {time.perf_counter() - begun:.1f} s", flush=True
            )
        begun = time.perf_counter()
        pipe.decode(row.latent)
        print(f"decode, {name}: {time.perf_counter() - begun:.1f} s", flush=True)
        report_peak("so far", baseline, weights)


def report_peak(when: str, baseline: float, weights: float) -> None:
    peak = memory("VmHWM")
    ratio = (peak - baseline) / weights
    print(f"peak memory {when}: {peak:.2f} GB, {ratio:.2f} x weights above the imports", flush=True)


def memory(field: str) -> float:
    """A field of /proc/self/status, in GB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) * 1024 / 1e9


if __name__ == "__main__":
    main()
