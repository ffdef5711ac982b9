"""A checkpoint in one file, as the original code of Stable Diffusion wrote it."""

import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from worker.diffusion.errors import CheckpointError
from worker.diffusion.hub import download_vocabulary
from worker.diffusion.layout import PICKLE, PICKLES
from worker.diffusion.original_config import (
    Shapes,
    added_conditions,
    clip_config,
    count,
    open_clip_config,
    unet_config,
    vae_config,
)
from worker.diffusion.original_names import (
    Names,
    open_clip_names,
    translate,
    unet_names,
    vae_names,
)
from worker.diffusion.safetensors_file import StoredTensor, read_safetensors
from worker.diffusion.single_file_families import FAMILIES, UNET, VAE, Family
from worker.diffusion.tokenizer import Tokenizer
from worker.diffusion.weights import NAMED, canonical

#: Keys that are read by none, each with the reason.
DROPPED = (
    (r"model_ema\.", "training's running average, beside the weights that are meant to be used"),
    (
        r"(betas|(sqrt_|log_)?(one_minus_|recip_|recipm1_)?alphas_cumprod(_prev)?"
        r"|posterior_\w+|lvlb_weights|logvar|denoiser\.(log_)?sigmas)$",
        "tables of the noise schedule, which are computed here",
    ),
    (r"first_stage_model\.(loss|model_ema)\.", "what only the autoencoder's training needed"),
    (
        r"(cond_stage_model|conditioner\.embedders\.0)\.(transformer\.)?"
        r"(vision_model\.|visual_projection\.|text_projection(\.weight)?$|logit_scale$)",
        "the parts of CLIP that compare pictures with texts",
    ),
    (r"(cond_stage_model|conditioner\.embedders\.\d)\.model\.logit_scale$", "the same"),
    (r"cond_stage_model\.model\.text_projection$", "the same; Stable Diffusion XL alone uses it"),
    (r"\w+(\.\w+)*\.attn_mask$", "the causal mask, a constant"),
    (r"(v_pred|ztsnr)$", "marks without values, read as such"),
)
DROPPED_KEYS = re.compile("|".join(pattern for pattern, _ in DROPPED))

LAYERS = r"transformer\.resblocks\.(\d+)\."
#: Layers of OpenCLIP-H where the file lacks the last already: some tools save what they loaded.
CUT = 23


class SingleFile:
    """One `.safetensors` file of Stable Diffusion 1.x, 2.x, XL or XL's refiner.

    The configurations follow from the shapes in it; no `.yaml` beside it is read. Two things the
    file does not tell. Whether a Stable Diffusion 2.x predicts v or epsilon: v is taken, as
    `stable-diffusion-2-1` does, and a `2-base` needs the `scheduler`
    `{"class": "PNDMScheduler", "prediction_type": "epsilon"}`. And the vocabulary: it is read from
    a folder `tokenizer` beside the file, else from CLIP's repository on the hub.

    Every key is used, or dropped for a reason that DROPPED states. Raises CheckpointError for
    a file that is not there, no safetensors, or of another family.
    """

    def __init__(self, path: Path) -> None:
        if path.suffix in PICKLES:
            raise CheckpointError(
                f"{path} is {PICKLE} diffusers: "
                "StableDiffusionPipeline.from_single_file(FILE).save_pretrained(FOLDER)."
            )
        if not path.is_file():
            raise CheckpointError(f"{path} is not there.")
        if path.suffix != ".safetensors":
            raise CheckpointError(f"{path} is no .safetensors file, nor a folder.")
        self.path = path
        tensors = {tensor.key: tensor for tensor in read_safetensors(path)}
        self.family = family_of(path, tensors)
        self.index = self.family.index
        kept = {key: t for key, t in tensors.items() if not re.match(DROPPED_KEYS, key)}
        self.parts = {name: below(start, kept) for name, start in self.family.prefixes.items()}
        if self.family.without_last_layer:
            self.parts["text_encoder"] = without_last_layer(self.parts["text_encoder"])
        self.marks = tensors.keys() & {"v_pred", "ztsnr"}
        prefixes = tuple(self.family.prefixes.values())
        unknown = sorted(key for key in kept if not key.startswith(prefixes))
        if unknown:
            raise CheckpointError(
                f"{path} holds {len(unknown)} keys that no {self.family.name} has: "
                f"{', '.join(unknown[:NAMED])}{', …' * (len(unknown) > NAMED)}."
            )

    @property
    def components(self) -> Collection[str]:
        return self.parts.keys()

    def config(self, component: str) -> dict[str, Any]:
        if component == "scheduler":
            return self._scheduler()
        shapes = {key: tensor.shape for key, tensor in self._part(component).items()}
        told = self.family.configs.get(component, {})
        try:
            return self._inferred(component, shapes) | told
        except CheckpointError as error:
            raise CheckpointError(f"{self.path} is damaged; {component}: {error}") from None

    def _inferred(self, component: str, shapes: Shapes) -> dict[str, Any]:
        if component == "vae":
            return vae_config(shapes)
        if component != "unet":
            is_open_clip = self.family.is_open_clip(component)
            return open_clip_config(shapes) if is_open_clip else clip_config(shapes)
        if not self.family.numbers:
            return unet_config(shapes)
        pooled = self.config("text_encoder_2")["projection_dim"]
        return unet_config(shapes) | added_conditions(shapes, pooled, self.family.numbers)

    def _scheduler(self) -> dict[str, Any]:
        marked: dict[str, Any] = {}
        if "v_pred" in self.marks:
            marked["prediction_type"] = "v_prediction"
        if "ztsnr" in self.marks:
            marked["rescale_betas_zero_snr"] = True
        return self.family.configs["scheduler"] | marked

    def tokenizer(self, component: str) -> Tokenizer:
        beside = self.path.parent / "tokenizer"
        folder = beside if beside.is_dir() else download_vocabulary()
        encoder = component.replace("tokenizer", "text_encoder")
        # OpenCLIP pads with the token of id 0.
        return Tokenizer.from_pretrained(folder, "!" if self.family.is_open_clip(encoder) else None)

    def weights(self, component: str) -> dict[str, StoredTensor]:
        return canonical(self._renamed(component))

    def _renamed(self, component: str) -> Iterator[StoredTensor]:
        names = self._names(component)
        for key, tensor in self._part(component).items():
            if names is None:
                yield tensor.renamed(key)
            elif key == "text_projection":
                yield tensor.turned().renamed(names[key])
            elif fused := re.fullmatch(r"transformer\.resblocks\.(\d+)\.attn\.in_proj_(\w+)", key):
                for i, letter in enumerate("qkv"):
                    path = f"text_model.encoder.layers.{fused[1]}.self_attn.{letter}_proj"
                    yield tensor.part(i, 3).renamed(f"{path}.{fused[2]}")
            else:
                # What has no name here is found to be unexpected under its own.
                yield tensor.renamed(translate(key, names) or tensor.key)

    def _names(self, component: str) -> Names | None:
        """The names of a component's modules; None where they are those used here."""
        config = self.config(component)
        if component == "unet":
            attends = ["CrossAttn" in kind for kind in config["down_block_types"]]
            return unet_names(config["layers_per_block"], attends)
        if component == "vae":
            return vae_names(len(config["block_out_channels"]), config["layers_per_block"])
        if self.family.is_open_clip(component):
            return open_clip_names(config["num_hidden_layers"])
        return None

    def _part(self, component: str) -> dict[str, StoredTensor]:
        if component not in self.parts:
            raise CheckpointError(f"{self.path} is of {self.family.name} and has no {component}.")
        return self.parts[component]


def family_of(path: Path, keys: Collection[str]) -> Family:
    """The family whose parts are all in a file."""
    for family in FAMILIES:
        prefixes = family.prefixes.values()
        if all(any(key.startswith(prefix) for key in keys) for prefix in prefixes):
            return family
    if any("lora" in key for key in keys):
        raise CheckpointError(f"{path} is a LoRA, which is given as loras=[(FILE, weight)].")
    names = ", ".join(family.name for family in FAMILIES)
    raise CheckpointError(
        f"{path} is no checkpoint of {names} in the original naming: that has keys under {UNET}, "
        f"{VAE} and cond_stage_model. or conditioner.; this has {', '.join(sorted(keys)[:NAMED])}."
    )


def below(prefix: str, tensors: Mapping[str, StoredTensor]) -> dict[str, StoredTensor]:
    return {k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)}


def without_last_layer(tensors: dict[str, StoredTensor]) -> dict[str, StoredTensor]:
    layers = count(tensors, LAYERS)
    if layers == CUT:
        return tensors
    last = f"transformer.resblocks.{layers - 1}."
    return {key: tensor for key, tensor in tensors.items() if not key.startswith(last)}
