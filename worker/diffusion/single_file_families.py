"""What each family's single files are made of, and what no shape in them tells."""

from dataclasses import dataclass
from typing import Any

UNET, VAE = "model.diffusion_model.", "first_stage_model."
#: What follows on a text encoder's place in the file, by the code that it comes from.
CLIP, OPEN_CLIP = "transformer.", "model."

NOISE: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "set_alpha_to_one": False,
    "clip_sample": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
}

XL: dict[str, dict[str, Any]] = {
    "unet": {"sample_size": 128},
    "vae": {"scaling_factor": 0.13025, "force_upcast": True},
    "scheduler": {
        **NOISE,
        "_class_name": "EulerDiscreteScheduler",
        "timestep_spacing": "leading",
    },
}


@dataclass(frozen=True)
class Family:
    name: str
    #: What `model_index.json` says besides the parts.
    index: dict[str, Any]
    #: The prefix of each text encoder's keys.
    encoders: dict[str, str]
    #: What is added to each part's configuration.
    configs: dict[str, dict[str, Any]]
    #: Whether the text is taken before the last layer, which diffusers' layout then leaves out.
    without_last_layer: bool = False
    #: How many numbers, of sizes and scores, the UNet is conditioned on.
    numbers: int = 0

    @property
    def prefixes(self) -> dict[str, str]:
        """The prefix of each part's keys."""
        return {"unet": UNET, "vae": VAE, **self.encoders}

    def is_open_clip(self, component: str) -> bool:
        return self.encoders.get(component, "").endswith(f".{OPEN_CLIP}")


FAMILIES = (
    Family(
        "Stable Diffusion 1.x",
        {"_class_name": "StableDiffusionPipeline"},
        {"text_encoder": f"cond_stage_model.{CLIP}"},
        {
            "unet": {"sample_size": 64},
            "scheduler": {**NOISE, "_class_name": "PNDMScheduler"},
        },
    ),
    Family(
        "Stable Diffusion 2.x",
        {"_class_name": "StableDiffusionPipeline"},
        {"text_encoder": f"cond_stage_model.{OPEN_CLIP}"},
        {
            "unet": {"sample_size": 96, "upcast_attention": True},
            "scheduler": {
                **NOISE,
                "_class_name": "DDIMScheduler",
                "prediction_type": "v_prediction",
            },
        },
        without_last_layer=True,
    ),
    Family(
        "Stable Diffusion XL",
        {"_class_name": "StableDiffusionXLPipeline", "force_zeros_for_empty_prompt": True},
        {
            "text_encoder": f"conditioner.embedders.0.{CLIP}",
            "text_encoder_2": f"conditioner.embedders.1.{OPEN_CLIP}",
        },
        XL,
        numbers=6,
    ),
    Family(
        "Stable Diffusion XL's refiner",
        {
            "_class_name": "StableDiffusionXLImg2ImgPipeline",
            "force_zeros_for_empty_prompt": False,
            "requires_aesthetics_score": True,
        },
        {"text_encoder_2": f"conditioner.embedders.0.{OPEN_CLIP}"},
        XL,
        numbers=5,
    ),
)
