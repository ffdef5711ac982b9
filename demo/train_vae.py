"""Train the demo's AutoencoderKL: 64x64 pictures to 4x16x16 latents and back."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from PIL import Image
from torch.nn import functional

CONFIG = {
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": 4,
    "sample_size": 64,
    "block_out_channels": (32, 32, 64),
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "down_block_types": ("DownEncoderBlock2D",) * 3,
    "up_block_types": ("UpDecoderBlock2D",) * 3,
}


def to_tensor(pictures: np.ndarray) -> torch.Tensor:
    """uint8 (n, h, w, 3) to float32 (n, 3, h, w) in -1..1."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1


def edges(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Differences of neighbouring pixels, along rows and along columns."""
    return x[..., 1:] - x[..., :-1], x[..., 1:, :] - x[..., :-1, :]


def loss_of(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean absolute error of the pixels, of their differences, and of the colours of 4x4 blocks."""
    lines = zip(edges(output), edges(target), strict=True)
    return (
        functional.l1_loss(output, target)
        + 0.5 * sum(functional.l1_loss(a, b) for a, b in lines)
        + functional.l1_loss(functional.avg_pool2d(output, 4), functional.avg_pool2d(target, 4))
    )


def thumbnail_loss(latents: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """How far the first three latent channels are from the picture's own 16x16 thumbnail.

    Left free, so short a training finds one colour axis after the other; latents that look like
    pictures are also the easiest for a small UNet.
    """
    return functional.l1_loss(latents[:, :3], 2 * (functional.avg_pool2d(target, 4) - 0.5))


def quieten(vae: AutoencoderKL) -> None:
    """Begin with a posterior that is all but certain: noise at the start only hides the picture."""
    with torch.no_grad():
        vae.quant_conv.weight[4:] = 0
        vae.quant_conv.bias[4:] = -6


def save_sheet(path: Path, target: torch.Tensor, output: torch.Tensor) -> None:
    """Targets above, outputs below."""
    rows = torch.cat([torch.cat(list(x), dim=2) for x in (target, output)], dim=1)
    values = ((rows.clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
    Image.fromarray(values).save(path)


def measure_scale(vae: AutoencoderKL, images: torch.Tensor) -> float:
    """What brings the latents to a variance of one."""
    with torch.no_grad():
        return float(1 / vae.encode(images).latent_dist.mean.std())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("folder", type=Path, help="the VAE's folder; resumed from when there")
    parser.add_argument("--minutes", type=float, default=12)
    parser.add_argument("--batch", type=int, default=24)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--kl", type=float, default=2e-4)
    parser.add_argument("--decoder-only", action="store_true", help="leave the latents as they are")
    arguments = parser.parse_args()

    torch.manual_seed(0)
    pictures = np.load(arguments.data)["pictures"]
    known = (arguments.folder / "config.json").exists()
    vae = AutoencoderKL.from_pretrained(arguments.folder) if known else AutoencoderKL(**CONFIG)
    if not known:
        quieten(vae)
    if arguments.decoder_only:
        vae.encoder.requires_grad_(False)
        vae.quant_conv.requires_grad_(False)
    trained = [weight for weight in vae.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=arguments.rate, weight_decay=0.0)
    held = to_tensor(pictures[:: len(pictures) // 24][:24])
    rng = np.random.default_rng(int(time.time()))
    start, saved, step = time.time(), time.time(), 0
    while (gone := (time.time() - start) / (60 * arguments.minutes)) < 1:
        warm = min(1.0, (step + 1) / 50)
        decay = 0.02 + 0.98 * 0.5 * (1 + np.cos(np.pi * gone))
        optimizer.param_groups[0]["lr"] = arguments.rate * warm * decay
        batch = to_tensor(pictures[rng.integers(len(pictures), size=arguments.batch)])
        with torch.autocast("cpu", torch.bfloat16):
            posterior = vae.encode(batch).latent_dist
            output = vae.decode(posterior.sample()).sample
        loss = (
            loss_of(output.float(), batch)
            + 0.5 * thumbnail_loss(posterior.mean.float(), batch)
            + arguments.kl * posterior.kl().mean() / 1024
        )
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        step += 1
        if step % 100 == 0:
            print(f"{step} {time.time() - start:.0f} s loss {loss.item():.4f}", flush=True)
        if time.time() - saved > 90:
            saved = time.time()
            vae.save_pretrained(arguments.folder)
            with torch.no_grad():
                again = vae(held).sample
            print(f"held L1 {functional.l1_loss(again, held):.4f}", flush=True)
            save_sheet(arguments.folder.parent / "vae.png", held, again)
    with torch.no_grad():
        again = vae(held).sample
    print(f"end: {step} steps, L1 {functional.l1_loss(again, held):.4f}")
    save_sheet(arguments.folder.parent / "vae.png", held, again)
    if not arguments.decoder_only:
        sample = to_tensor(pictures[:: max(1, len(pictures) // 1000)])
        vae.register_to_config(scaling_factor=round(measure_scale(vae, sample), 5))
    vae.save_pretrained(arguments.folder)


if __name__ == "__main__":
    main()
