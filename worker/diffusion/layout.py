"""Which files of a checkpoint are needed: diffusers' layout, as a function of the names there."""

import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from worker.diffusion.errors import CheckpointError

INDEX = "model_index.json"
#: Where a checkpoint is described; its front matter may name another one that belongs to it.
CARD = "README.md"

#: Components that published checkpoints name and that no pipeline here uses.
UNUSED = ("safety_checker", "feature_extractor")

#: Components without weights begin so; all of their files are small.
WEIGHTLESS = ("tokenizer", "scheduler", "image_processor")

#: The component by which a decoder is told that needs a prior.
DECODER = "movq"

#: Where a prior is a part of the checkpoint, its components are named so.
PRIOR = "prior_"

PICKLES = (".bin", ".ckpt", ".pt", ".pth")

#: Why these are refused, to be followed by how each is converted.
PICKLE = (
    "a pickle, which may run code when opened; only safetensors are read. Where you trust it, "
    "convert it with"
)


def components(index: Mapping[str, Any]) -> dict[str, str]:
    """The components that `model_index.json` names, each with the library that wrote it."""
    pairs = {name: value for name, value in index.items() if isinstance(value, list)}
    return {
        name: pair[0]
        for name, pair in pairs.items()
        if name not in UNUSED and len(pair) == 2 and isinstance(pair[0], str)
    }


def needed_files(
    names: Collection[str], index: Mapping[str, Any], variant: str | None
) -> list[str]:
    """Those of `names`, paths relative to the checkpoint, that loading it reads.

    Raises CheckpointError when one is missing.
    """
    parts = components(index)
    needed = [INDEX]
    if DECODER in parts and CARD in names:
        needed.append(CARD)
    for component, library in parts.items():
        folder = f"{component}/"
        here = {name.removeprefix(folder) for name in names if name.startswith(folder)}
        if not here:
            raise CheckpointError(f"{INDEX} names {component}, but its folder is not there.")
        texts = {name for name in here if name.endswith((".json", ".txt")) and "/" not in name}
        chosen = {name for name in texts if ".safetensors.index." not in name}
        if not component.removeprefix(PRIOR).startswith(WEIGHTLESS):
            weights = weights_file(here, component, library, variant)
            chosen |= {weights}
            if weights.endswith(".json"):
                chosen |= shards(here, weights)
        needed += [folder + name for name in sorted(chosen)]
    return needed


def weights_file(names: Collection[str], component: str, library: str, variant: str | None) -> str:
    """The safetensors file of one component's folder, or the index of its shards."""
    stem = "diffusion_pytorch_model" if library == "diffusers" else "model"
    infix = f".{variant}" if variant else ""
    single = f"{stem}{infix}.safetensors"
    sharded = f"{stem}.safetensors.index{infix}.json"
    for name in (single, sharded):
        if name in names:
            return name
    others = sorted(name for name in names if name.endswith(".safetensors"))
    if others:
        wanted = f"variant {variant!r}" if variant else "no variant"
        raise CheckpointError(
            f"{component} has no {single}, which {wanted} asks for; there is {', '.join(others)}."
        )
    pickles = sorted(name for name in names if name.endswith(PICKLES))
    if pickles:
        raise CheckpointError(
            f"{component} has only {', '.join(pickles)}, {PICKLE} diffusers: "
            "DiffusionPipeline.from_pretrained(SOURCE).save_pretrained(FOLDER)."
        )
    raise CheckpointError(f"{component} has no weights: {single} is not there.")


def shards(names: Collection[str], index_name: str) -> set[str]:
    """The names that look like shards of this index; the index itself says which are read."""
    stem, _, variant = index_name.removesuffix(".json").partition(".safetensors.index")
    infix = re.escape(variant)
    number = r"-\d+-of-\d+"
    pattern = rf"{re.escape(stem)}(?:{infix}{number}|{number}{infix})\.safetensors"
    return {name for name in names if re.fullmatch(pattern, name)}


def file_names(folder: Path) -> set[str]:
    """The files of a checkpoint's folder and of its components' folders, relative to it."""
    files = [*folder.glob("*"), *folder.glob("*/*")]
    return {file.relative_to(folder).as_posix() for file in files if file.is_file()}


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises CheckpointError when it is not there or not one."""
    try:
        value = json.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is not there.") from error
    except ValueError as error:
        raise CheckpointError(f"{path} is not JSON: {error}.") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} holds no JSON object.")
    return value
