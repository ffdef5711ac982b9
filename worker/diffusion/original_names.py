"""Names of the original latent-diffusion and OpenCLIP code, and what they are called here.

Each function gives a table from the path of a module there to its path here. A path stands for
everything below it that has no entry of its own.
"""

from collections.abc import Mapping, Sequence

Names = dict[str, str]

UNET = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "label_emb.0.0": "add_embedding.linear_1",
    "label_emb.0.2": "add_embedding.linear_2",
    "input_blocks.0.0": "conv_in",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}

UNET_RESNET = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}

VAE = {"quant_conv": "quant_conv", "post_quant_conv": "post_quant_conv"}

VAE_HALF = {
    "conv_in": "conv_in",
    "mid.block_1": "mid_block.resnets.0",
    "mid.attn_1.norm": "mid_block.attentions.0.group_norm",
    "mid.attn_1.q": "mid_block.attentions.0.to_q",
    "mid.attn_1.k": "mid_block.attentions.0.to_k",
    "mid.attn_1.v": "mid_block.attentions.0.to_v",
    "mid.attn_1.proj_out": "mid_block.attentions.0.to_out.0",
    "mid.block_2": "mid_block.resnets.1",
    "norm_out": "conv_norm_out",
    "conv_out": "conv_out",
}

VAE_RESNET = {
    "norm1": "norm1",
    "conv1": "conv1",
    "norm2": "norm2",
    "conv2": "conv2",
    "nin_shortcut": "conv_shortcut",
}

OPEN_CLIP = {
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "token_embedding": "text_model.embeddings.token_embedding",
    "ln_final": "text_model.final_layer_norm",
    "text_projection": "text_projection.weight",
}

OPEN_CLIP_LAYER = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}


def unet_names(layers: Sequence[int], attends: Sequence[bool]) -> Names:
    """A UNet's names, from the number of residual blocks of each level and where it attends.

    The original counts all blocks of the way down in one row, and of the way up in another.
    """
    names = dict(UNET)
    last = len(layers) - 1
    block = 1
    for level, count in enumerate(layers):
        here = f"down_blocks.{level}"
        for i in range(count):
            names |= inside(f"input_blocks.{block}.0", f"{here}.resnets.{i}", UNET_RESNET)
            if attends[level]:
                names[f"input_blocks.{block}.1"] = f"{here}.attentions.{i}"
            block += 1
        if level < last:
            names[f"input_blocks.{block}.0.op"] = f"{here}.downsamplers.0.conv"
            block += 1

    names |= inside("middle_block.0", "mid_block.resnets.0", UNET_RESNET)
    names["middle_block.1"] = "mid_block.attentions.0"
    names |= inside("middle_block.2", "mid_block.resnets.1", UNET_RESNET)

    block = 0
    for level in range(last, -1, -1):
        here = f"up_blocks.{last - level}"
        for i in range(layers[level] + 1):
            names |= inside(f"output_blocks.{block}.0", f"{here}.resnets.{i}", UNET_RESNET)
            if attends[level]:
                names[f"output_blocks.{block}.1"] = f"{here}.attentions.{i}"
            block += 1
        if level > 0:
            place = 2 if attends[level] else 1
            names[f"output_blocks.{block - 1}.{place}.conv"] = f"{here}.upsamplers.0.conv"
    return names


def vae_names(levels: int, layers: int) -> Names:
    """An autoencoder's names; the original counts the decoder's levels from the picture's."""
    names = dict(VAE)
    for half in ("encoder", "decoder"):
        names |= inside(half, half, VAE_HALF)
        for block in ("mid.block_1", "mid.block_2"):
            names |= inside(f"{half}.{block}", f"{half}.{VAE_HALF[block]}", VAE_RESNET)
    for level in range(levels):
        there, here = f"encoder.down.{level}", f"encoder.down_blocks.{level}"
        names[f"{there}.downsample.conv"] = f"{here}.downsamplers.0.conv"
        for i in range(layers):
            names |= inside(f"{there}.block.{i}", f"{here}.resnets.{i}", VAE_RESNET)
        there, here = f"decoder.up.{level}", f"decoder.up_blocks.{levels - 1 - level}"
        names[f"{there}.upsample.conv"] = f"{here}.upsamplers.0.conv"
        for i in range(layers + 1):
            names |= inside(f"{there}.block.{i}", f"{here}.resnets.{i}", VAE_RESNET)
    return names


def open_clip_names(layers: int) -> Names:
    """A text encoder's names; the fused projections of its attention are not among them."""
    names = dict(OPEN_CLIP)
    for i in range(layers):
        here = f"text_model.encoder.layers.{i}"
        names |= inside(f"transformer.resblocks.{i}", here, OPEN_CLIP_LAYER)
    return names


def inside(there: str, here: str, names: Mapping[str, str]) -> Names:
    return {f"{there}.{a}": f"{here}.{b}" for a, b in names.items()}


def translate(key: str, names: Mapping[str, str]) -> str | None:
    """A key with the longest path that has an entry replaced; None where there is none."""
    path, rest = key, ""
    while path:
        if path in names:
            return names[path] + rest
        path, _, name = path.rpartition(".")
        rest = f".{name}{rest}"
    return None
