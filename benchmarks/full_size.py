"""Loads and runs a checkpoint of Stable Diffusion 1.5's size, with random weights.

    python benchmarks/full_size.py [float16|float32]

Writes it into a temporary folder (2 or 4 GB), then measures in a fresh process: seconds to load,
peak memory against the weights' size, seconds to compile, seconds a step at 512x512.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

MODEL_INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "_diffusers_version": "0.6.0",
    "text_encoder": ["transformers", "CLIPTextModel"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}
UNET = {
    "_class_name": "UNet2DConditionModel",
    "_diffusers_version": "0.6.0",
    "act_fn": "silu",
    "attention_head_dim": 8,
    "block_out_channels": [320, 640, 1280, 1280],
    "center_input_sample": False,
    "cross_attention_dim": 768,
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    "downsample_padding": 1,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "in_channels": 4,
    "layers_per_block": 2,
    "mid_block_scale_factor": 1,
    "norm_eps": 1e-05,
    "norm_num_groups": 32,
    "out_channels": 4,
    "sample_size": 64,
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
}
VAE = {
    "_class_name": "AutoencoderKL",
    "_diffusers_version": "0.6.0",
    "act_fn": "silu",
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "in_channels": 3,
    "latent_channels": 4,
    "layers_per_block": 2,
    "norm_num_groups": 32,
    "out_channels": 3,
    "sample_size": 512,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
}
TEXT_ENCODER = {
    "architectures": ["CLIPTextModel"],
    "eos_token_id": 2,
    "hidden_act": "quick_gelu",
    "hidden_size": 768,
    "intermediate_size": 3072,
    "layer_norm_eps": 1e-05,
    "max_position_embeddings": 77,
    "model_type": "clip_text_model",
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "vocab_size": 49408,
}


def main() -> None:
    dtype = sys.argv[1] if len(sys.argv) > 1 else "float16"
    with tempfile.TemporaryDirectory() as temporary:
        for command in ("write", "measure"):
            subprocess.run([sys.executable, __file__, command, temporary, dtype], check=True)


def write(folder: Path, dtype: str) -> None:
    from worker.diffusion.models import (
        ClipTextConfig,
        ClipTextModel,
        UNet,
        UNetConfig,
        Vae,
        VaeConfig,
    )

    vae = Vae(VaeConfig.from_dict(VAE))
    cells = {
        "unet": (UNET, [UNet(UNetConfig.from_dict(UNET))]),
        "vae": (VAE, [vae.encoder, vae.decoder]),
        "text_encoder": (TEXT_ENCODER, [ClipTextModel(ClipTextConfig.from_dict(TEXT_ENCODER))]),
    }
    (folder / "model_index.json").write_text(json.dumps(MODEL_INDEX))
    for name, (config, parts) in cells.items():
        (folder / name).mkdir()
        (folder / name / "config.json").write_text(json.dumps(config))
        stem = "model" if name == "text_encoder" else "diffusion_pytorch_model"
        tensors = {
            key: draw(parameter.shape).astype(dtype)
            for part in parts
            for key, parameter in part.parameters_and_names()
        }
        save_file(tensors, folder / name / f"{stem}.safetensors")


def draw(shape: tuple[int, ...]) -> np.ndarray:
    if len(shape) == 1:
        return np.ones(shape, np.float32)
    fan_in = int(np.prod(shape[1:]))
    numbers = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    return numbers / np.float32(fan_in**0.5)


def measure(folder: Path, dtype: str) -> None:
    import mindspore as ms

    from worker.diffusion.checkpoint import Checkpoint
    from worker.diffusion.models import load_text_encoder, load_unet, load_vae

    baseline = memory("VmRSS")
    print(f"stored as {dtype}; after the imports {baseline:.2f} GB")
    start = time.perf_counter()
    checkpoint = Checkpoint.open(folder)
    unet = load_unet(checkpoint)
    vae, text_encoder = load_vae(checkpoint), load_text_encoder(checkpoint)
    seconds = time.perf_counter() - start
    parts = [unet, vae.encoder, vae.decoder, text_encoder]
    weights = sum(p.size * p.itemsize for part in parts for p in part.get_parameters()) / 1e9
    print(f"load: {seconds:.2f} s for {weights:.2f} GB of float32 weights")
    report_peak("after loading", baseline, weights)

    def timed(name: str, call: object, *inputs: np.ndarray) -> np.ndarray:
        start = time.perf_counter()
        output = call(*(ms.Tensor(value) for value in inputs)).asnumpy()
        print(f"{name}: {time.perf_counter() - start:.2f} s", flush=True)
        if not np.isfinite(output).all():
            raise SystemExit(f"{name} gave numbers that are not finite")
        return output

    ids = np.arange(154, dtype=np.int32).reshape(2, 77)
    context = timed("text encoder, first call", text_encoder, ids)
    timed("text encoder", text_encoder, ids)
    report_peak("after the text encoder", baseline, weights)
    latents = np.random.default_rng(1).standard_normal((2, 4, 64, 64), dtype=np.float32)
    timesteps = np.full(2, 500, np.float32)
    for name in ("UNet step, first call", "UNet step", "UNet step"):
        timed(name, unet, latents, timesteps, context)
    report_peak("after the UNet", baseline, weights)
    for name in ("VAE decode, first call", "VAE decode"):
        pixels = timed(name, vae.decode, latents[:1])
    report_peak("after VAE decode", baseline, weights)
    for name in ("VAE encode, first call", "VAE encode"):
        timed(name, lambda x: vae.encode(x)[0], pixels)
    report_peak("after VAE encode", baseline, weights)


def report_peak(when: str, baseline: float, weights: float) -> None:
    peak = memory("VmHWM")
    ratio = (peak - baseline) / weights
    print(f"peak memory {when}: {peak:.2f} GB, {ratio:.2f} x weights above the imports", flush=True)


def memory(field: str) -> float:
    """A field of /proc/self/status, in GB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) * 1024 / 1e9


if __name__ == "__main__":
    if sys.argv[1:2] == ["write"]:
        write(Path(sys.argv[2]), sys.argv[3])
    elif sys.argv[1:2] == ["measure"]:
        measure(Path(sys.argv[2]), sys.argv[3])
    else:
        main()
