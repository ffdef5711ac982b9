"""The model families that there are."""

from worker.diffusion.pipelines.stable_diffusion import StableDiffusion

FAMILIES = (StableDiffusion,)
