"""The model families that there are."""

from worker.diffusion.pipelines.kandinsky import Kandinsky
from worker.diffusion.pipelines.stable_diffusion import StableDiffusion
from worker.diffusion.pipelines.stable_diffusion_xl import StableDiffusionXL

FAMILIES = (StableDiffusion, StableDiffusionXL, Kandinsky)
