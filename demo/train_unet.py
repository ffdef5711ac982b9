"""Train the demo's UNet and text encoder together on the VAE's latents.

Under torchrun several processes each train their own copy, and meet at the mean of their weights
every few steps (local SGD): on a few CPU cores this passes any number of threads.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from data import STYLES, prompts
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from diffusers.training_utils import EMAModel
from tokenizer import write_tokenizer
from torch.nn import functional
from torch.nn.utils import clip_grad_norm_, parameters_to_vector
from train_vae import to_tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

UNET = {
    "sample_size": 16,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (64, 128, 192),
    "layers_per_block": 1,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "cross_attention_dim": 128,
    "attention_head_dim": 4,
}
SCHEDULER = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}

# Names trained before are shown this often, against once for each of the others.
KNOWN_SHARE = 0.4
# A word's embedding learns only in the few steps that show it.
WORDS_PACE = 3
# What a picture shows is settled while it is noisy; 1 would choose all levels of noise alike.
NOISY = 0.7


def new_pipeline(vae: AutoencoderKL, tokenizer: CLIPTokenizer) -> StableDiffusionPipeline:
    """An untrained Stable Diffusion of the demo's size."""
    text = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=512,
        projection_dim=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=77,
        hidden_act="quick_gelu",
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=CLIPTextModel(text),
        tokenizer=tokenizer,
        unet=UNet2DConditionModel(**UNET),
        scheduler=DDIMScheduler(**SCHEDULER),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def tokenize(tokenizer: CLIPTokenizer, texts: list[str]) -> torch.Tensor:
    """Token ids (n, 77), padded as the pipeline pads."""
    options = {"padding": "max_length", "max_length": 77, "truncation": True}
    return tokenizer(texts, return_tensors="pt", **options).input_ids


@torch.no_grad()
def encode(vae: AutoencoderKL, pictures: np.ndarray) -> torch.Tensor:
    """Scaled latents of uint8 pictures."""
    parts = [
        vae.encode(to_tensor(pictures[i : i + 64])).latent_dist.mean
        for i in range(0, len(pictures), 64)
    ]
    return torch.cat(parts) * vae.config.scaling_factor


def latents_of(vae: AutoencoderKL, data: Path) -> torch.Tensor:
    """The latents of a file of pictures; kept beside it, since the VAE no longer changes."""
    kept = data.with_suffix(".latents.npy")
    if not kept.exists():
        np.save(kept, encode(vae, np.load(data)["pictures"]).numpy())
    return torch.from_numpy(np.load(kept))


@torch.no_grad()
def meet(weights: list[torch.Tensor], gone: float) -> float:
    """Give all processes the mean of their weights, and of how much of their time is gone."""
    if not dist.is_initialized():
        return gone
    flat = torch.cat([parameters_to_vector(weights), torch.tensor([gone])])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    at = 0
    for weight in weights:
        weight.copy_(flat[at : at + weight.numel()].view_as(weight))
        at += weight.numel()
    return float(flat[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("vae", type=Path)
    parser.add_argument("folder", type=Path, help="the pipeline's folder; resumed from when there")
    parser.add_argument("--names", type=int, default=208, help="train on this many names")
    parser.add_argument("--known", type=int, default=0, help="this many were trained before")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--ema", type=float, default=0.998)
    parser.add_argument("--save-every", type=float, default=180, help="seconds")
    arguments = parser.parse_args()
    if "RANK" in os.environ:
        dist.init_process_group("gloo")
    rank = dist.get_rank() if dist.is_initialized() else 0
    torch.manual_seed(0)

    known = (arguments.folder / "model_index.json").exists()
    if known:
        pipe = StableDiffusionPipeline.from_pretrained(arguments.folder, dtype=torch.float32)
    else:
        if rank == 0:
            write_tokenizer(arguments.folder / "tokenizer", prompts())
        if dist.is_initialized():
            dist.barrier()
        tokenizer = CLIPTokenizer.from_pretrained(arguments.folder / "tokenizer")
        pipe = new_pipeline(AutoencoderKL.from_pretrained(arguments.vae), tokenizer)
    unet, text_encoder, scheduler = pipe.unet, pipe.text_encoder, pipe.scheduler

    if rank == 0:
        latents_of(pipe.vae, arguments.data)
    if dist.is_initialized():
        dist.barrier()
    indices = torch.from_numpy(np.load(arguments.data)["indices"])
    chosen = indices < arguments.names * len(STYLES)
    indices, latents = indices[chosen], latents_of(pipe.vae, arguments.data)[chosen]
    share = torch.ones(len(indices))
    share[indices < arguments.known * len(STYLES)] = KNOWN_SHARE
    ids = tokenize(pipe.tokenizer, [*prompts(), ""])
    nothing = len(ids) - 1
    print(f"{len(latents)} latents, deviation {latents.std():.3f}", flush=True)

    weights = [*unet.parameters(), *text_encoder.parameters()]
    # On a CPU the plain products' gradients are several times faster than the fused attention's.
    unet.set_attn_processor(AttnProcessor())
    for model in (unet, text_encoder):
        model.requires_grad_(True).train()
    words = [*text_encoder.get_input_embeddings().parameters()]
    others = [weight for weight in weights if weight is not words[0]]
    groups = [{"params": others}, {"params": words}]
    optimizer = torch.optim.AdamW(groups, lr=arguments.rate, weight_decay=1e-3, fused=True)
    ema = EMAModel(weights, decay=arguments.ema, use_ema_warmup=True, power=0.75)
    levels = scheduler.alphas_cumprod
    importance = torch.clamp(levels / (1 - levels), max=5) / (levels / (1 - levels))
    torch.manual_seed(int(time.time()) + rank)
    start = saved = time.time()
    losses: list[float] = []

    def save() -> None:
        ema.store(weights)
        ema.copy_to(weights)
        unet.save_pretrained(arguments.folder / "unet")
        text_encoder.save_pretrained(arguments.folder / "text_encoder")
        ema.restore(weights)

    if rank == 0:
        pipe.save_pretrained(arguments.folder)
        write_tokenizer(arguments.folder / "tokenizer", [])
    gone = 0.0
    while gone < 1:
        if len(losses) % 10 == 0:
            gone = meet(weights, (time.time() - start) / (60 * arguments.minutes))
        warm = min(1.0, (len(losses) + 1) / 50)
        decay = 0.02 + 0.98 * 0.5 * (1 + np.cos(np.pi * gone))
        for group, pace in zip(optimizer.param_groups, (1, WORDS_PACE), strict=True):
            group["lr"] = arguments.rate * warm * decay * pace
        picked = torch.multinomial(share, arguments.batch)
        clean, noise = latents[picked], torch.randn(arguments.batch, *latents.shape[1:])
        times = (torch.rand(arguments.batch) ** NOISY * len(levels)).long()
        noisy = scheduler.add_noise(clean, noise, times)
        asked = indices[picked].where(torch.rand(arguments.batch) > 0.1, torch.tensor(nothing))
        with torch.autocast("cpu", torch.bfloat16):
            context = text_encoder(ids[asked]).last_hidden_state
            guess = unet(noisy, times, context).sample
        errors = functional.mse_loss(guess.float(), noise, reduction="none").mean(dim=(1, 2, 3))
        loss = (errors * importance[times]).mean()
        optimizer.zero_grad()
        loss.backward()
        clip_grad_norm_(weights, 1.0)
        optimizer.step()
        ema.step(weights)
        losses.append(loss.item())
        if rank == 0 and len(losses) % 100 == 0:
            spent = time.time() - start
            print(f"{len(losses)} {spent:.0f} s loss {np.mean(losses[-100:]):.4f}", flush=True)
        if rank == 0 and time.time() - saved > arguments.save_every:
            saved = time.time()
            save()
    if rank == 0:
        save()
    print(f"end: {len(losses)} steps of {arguments.batch} in {arguments.minutes:.0f} minutes")


if __name__ == "__main__":
    main()
