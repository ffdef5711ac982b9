"""What the files of LoRAs call the layers of a checkpoint."""

from collections.abc import Iterator, Mapping, Sequence

from worker.diffusion.original_config import count
from worker.diffusion.original_names import Names, translate, unet_names

#: The components that LoRAs are made for, each with what kohya's scripts call it.
SHORT = {
    "unet": ("unet",),
    "text_encoder": ("te", "te1"),
    "text_encoder_2": ("te2",),
}

#: The attention's projections as diffusers first called them, by their names now.
PROCESSORS = {
    "unet": {"to_q": "to_q", "to_k": "to_k", "to_v": "to_v", "to_out.0": "to_out"},
    "text": {"q_proj": "to_q", "k_proj": "to_k", "v_proj": "to_v", "out_proj": "to_out"},
}


def module_names(components: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, str]]:
    """Every name that a file may give a layer, with its component and the key of its weight.

    `components` has the keys of each component's weights.
    """
    names: dict[str, tuple[str, str]] = {}
    for component, keys in components.items():
        there = original(component, keys)
        for key in keys:
            if key.endswith(".weight"):
                module = key.removesuffix(".weight")
                names |= dict.fromkeys(spellings(component, module, there), (component, key))
    return names


def original(component: str, keys: Sequence[str]) -> Names:
    """The original names of a UNet's layers by those here; none for a text encoder.

    Kohya's scripts use them for Stable Diffusion XL, and those of diffusers for 1.x and 2.x.
    """
    if component != "unet":
        return {}
    levels = range(count(keys, r"down_blocks\.(\d+)\."))
    layers = [count(keys, rf"down_blocks\.{i}\.resnets\.(\d+)\.") for i in levels]
    attends = [count(keys, rf"down_blocks\.{i}\.attentions\.(\d+)\.") > 0 for i in levels]
    return {here: there for there, here in unet_names(layers, attends).items()}


def spellings(component: str, module: str, original: Names) -> Iterator[str]:
    """All names of one layer."""
    there = translate(module, original)
    for short in SHORT[component]:
        for name in (module, there):
            if name:
                yield f"lora_{short}_{name.replace('.', '_')}"
    yield f"{component}.{module}"
    path, _, name = module.rpartition(".")
    if component == "unet":
        # As saved from the UNet alone.
        yield module
        if path.endswith(".to_out"):
            path, name = path.removesuffix(".to_out"), "to_out.0"
        if name in PROCESSORS["unet"]:
            old = f"{path}.processor.{PROCESSORS['unet'][name]}"
            yield f"unet.{old}"
            yield old
        return
    # As transformers 5 saves text encoders.
    yield f"{component}.{module.removeprefix('text_model.')}"
    if name in PROCESSORS["text"]:
        yield f"{component}.{path}.{PROCESSORS['text'][name]}"
