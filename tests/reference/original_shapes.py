"""Names and shapes of the tensors in a single-file checkpoint, as the original code builds them."""

from typing import Any

Shapes = dict[str, list[int]]

#: Where each kind's file keeps its text encoders.
ENCODERS = {
    "sd1": {"text_encoder": "cond_stage_model.transformer."},
    "sd2": {"text_encoder": "cond_stage_model.model."},
    "sdxl": {
        "text_encoder": "conditioner.embedders.0.transformer.",
        "text_encoder_2": "conditioner.embedders.1.model.",
    },
    "refiner": {"text_encoder_2": "conditioner.embedders.0.model."},
}


def file_shapes(kind: str, parts: dict[str, dict[str, Any]]) -> Shapes:
    """All tensors of the file of one kind of checkpoint, whose parts a folder configures so."""
    shapes = {f"model.diffusion_model.{key}": s for key, s in unet(parts["unet"]).items()}
    shapes |= {f"first_stage_model.{key}": s for key, s in vae(parts["vae"]).items()}
    for component, prefix in ENCODERS[kind].items():
        config = parts[component]
        if config["hidden_act"] == "quick_gelu":
            text = clip(config)
        else:
            # Stable Diffusion 2 reads the text before the last layer.
            text = open_clip(config, config["num_hidden_layers"] + (kind == "sd2"))
        shapes |= {f"{prefix}{key}": shape for key, shape in text.items()}
    return shapes


def dense(key: str, outputs: int, inputs: int, bias: bool = True) -> Shapes:
    return {f"{key}.weight": [outputs, inputs]} | ({f"{key}.bias": [outputs]} if bias else {})


def conv(key: str, outputs: int, inputs: int, kernel: int = 3) -> Shapes:
    return {f"{key}.weight": [outputs, inputs, kernel, kernel], f"{key}.bias": [outputs]}


def norm(key: str, channels: int) -> Shapes:
    return {f"{key}.weight": [channels], f"{key}.bias": [channels]}


def unet_resnet(key: str, inputs: int, outputs: int, time: int) -> Shapes:
    shapes = {
        **norm(f"{key}.in_layers.0", inputs),
        **conv(f"{key}.in_layers.2", outputs, inputs),
        **dense(f"{key}.emb_layers.1", outputs, time),
        **norm(f"{key}.out_layers.0", outputs),
        **conv(f"{key}.out_layers.3", outputs, outputs),
    }
    if inputs != outputs:
        shapes |= conv(f"{key}.skip_connection", outputs, inputs, 1)
    return shapes


def spatial_transformer(key: str, channels: int, depth: int, config: dict[str, Any]) -> Shapes:
    linear, context = config.get("use_linear_projection"), config["cross_attention_dim"]
    shapes = norm(f"{key}.norm", channels)
    for name in ("proj_in", "proj_out"):
        path = f"{key}.{name}"
        shapes |= dense(path, channels, channels) if linear else conv(path, channels, channels, 1)
    for i in range(depth):
        block = f"{key}.transformer_blocks.{i}"
        for name in ("norm1", "norm2", "norm3"):
            shapes |= norm(f"{block}.{name}", channels)
        for name, width in (("attn1", channels), ("attn2", context)):
            shapes |= dense(f"{block}.{name}.to_q", channels, channels, bias=False)
            shapes |= dense(f"{block}.{name}.to_k", channels, width, bias=False)
            shapes |= dense(f"{block}.{name}.to_v", channels, width, bias=False)
            shapes |= dense(f"{block}.{name}.to_out.0", channels, channels)
        shapes |= dense(f"{block}.ff.net.0.proj", 8 * channels, channels)
        shapes |= dense(f"{block}.ff.net.2", channels, 4 * channels)
    return shapes


def unet(config: dict[str, Any]) -> Shapes:
    widths, layers = config["block_out_channels"], config["layers_per_block"]
    time, last = 4 * widths[0], len(widths) - 1
    depths = config.get("transformer_layers_per_block", 1)
    depths = [depths] * len(widths) if isinstance(depths, int) else depths
    attends = ["CrossAttn" in kind for kind in config["down_block_types"]]

    shapes = {**dense("time_embed.0", time, widths[0]), **dense("time_embed.2", time, time)}
    if added := config.get("projection_class_embeddings_input_dim"):
        shapes |= dense("label_emb.0.0", time, added) | dense("label_emb.0.2", time, time)
    shapes |= conv("input_blocks.0.0", widths[0], config["in_channels"])
    channels, skips, n = widths[0], [widths[0]], 1
    for level, width in enumerate(widths):
        for _ in range(layers):
            shapes |= unet_resnet(f"input_blocks.{n}.0", channels, width, time)
            channels = width
            if attends[level]:
                key = f"input_blocks.{n}.1"
                shapes |= spatial_transformer(key, channels, depths[level], config)
            skips.append(channels)
            n += 1
        if level != last:
            shapes |= conv(f"input_blocks.{n}.0.op", channels, channels)
            skips.append(channels)
            n += 1
    shapes |= unet_resnet("middle_block.0", channels, channels, time)
    shapes |= spatial_transformer("middle_block.1", channels, depths[-1], config)
    shapes |= unet_resnet("middle_block.2", channels, channels, time)
    n = 0
    for level in range(last, -1, -1):
        for i in range(layers + 1):
            inputs = channels + skips.pop()
            shapes |= unet_resnet(f"output_blocks.{n}.0", inputs, widths[level], time)
            channels, place = widths[level], 1
            if attends[level]:
                key = f"output_blocks.{n}.1"
                shapes |= spatial_transformer(key, channels, depths[level], config)
                place = 2
            if level and i == layers:
                shapes |= conv(f"output_blocks.{n}.{place}.conv", channels, channels)
            n += 1
    return {**shapes, **norm("out.0", channels), **conv("out.2", config["out_channels"], channels)}


def vae_resnet(key: str, inputs: int, outputs: int) -> Shapes:
    shapes = {
        **norm(f"{key}.norm1", inputs),
        **conv(f"{key}.conv1", outputs, inputs),
        **norm(f"{key}.norm2", outputs),
        **conv(f"{key}.conv2", outputs, outputs),
    }
    return shapes | (conv(f"{key}.nin_shortcut", outputs, inputs, 1) if inputs != outputs else {})


def vae_middle(key: str, channels: int) -> Shapes:
    shapes = norm(f"{key}.attn_1.norm", channels)
    for name in ("q", "k", "v", "proj_out"):
        shapes |= conv(f"{key}.attn_1.{name}", channels, channels, 1)
    for name in ("block_1", "block_2"):
        shapes |= vae_resnet(f"{key}.{name}", channels, channels)
    return shapes


def vae(config: dict[str, Any]) -> Shapes:
    widths, layers = config["block_out_channels"], config["layers_per_block"]
    latent, last = config["latent_channels"], len(widths) - 1
    shapes = {
        **conv("encoder.conv_in", widths[0], 3),
        **vae_middle("encoder.mid", widths[-1]),
        **norm("encoder.norm_out", widths[-1]),
        **conv("encoder.conv_out", 2 * latent, widths[-1]),
        **conv("quant_conv", 2 * latent, 2 * latent, 1),
        **conv("post_quant_conv", latent, latent, 1),
        **conv("decoder.conv_in", widths[-1], latent),
        **vae_middle("decoder.mid", widths[-1]),
        **norm("decoder.norm_out", widths[0]),
        **conv("decoder.conv_out", 3, widths[0]),
    }
    channels = widths[0]
    for level, width in enumerate(widths):
        for i in range(layers):
            shapes |= vae_resnet(f"encoder.down.{level}.block.{i}", channels, width)
            channels = width
        if level != last:
            shapes |= conv(f"encoder.down.{level}.downsample.conv", channels, channels)
    for level in range(last, -1, -1):
        for i in range(layers + 1):
            shapes |= vae_resnet(f"decoder.up.{level}.block.{i}", channels, widths[level])
            channels = widths[level]
        if level:
            shapes |= conv(f"decoder.up.{level}.upsample.conv", channels, channels)
    return shapes


def open_clip(config: dict[str, Any], layers: int) -> Shapes:
    width, wide = config["hidden_size"], config["intermediate_size"]
    shapes = {
        "positional_embedding": [77, width],
        "text_projection": [width, config["projection_dim"]],
        "logit_scale": [],
        "token_embedding.weight": [config["vocab_size"], width],
        **norm("ln_final", width),
    }
    for i in range(layers):
        block = f"transformer.resblocks.{i}"
        shapes |= norm(f"{block}.ln_1", width) | norm(f"{block}.ln_2", width)
        shapes |= {
            f"{block}.attn.in_proj_weight": [3 * width, width],
            f"{block}.attn.in_proj_bias": [3 * width],
            **dense(f"{block}.attn.out_proj", width, width),
            **dense(f"{block}.mlp.c_fc", wide, width),
            **dense(f"{block}.mlp.c_proj", width, wide),
        }
    return shapes


def clip(config: dict[str, Any]) -> Shapes:
    """CLIP's own text encoder, with transformers' names."""
    width, wide = config["hidden_size"], config["intermediate_size"]
    shapes = {
        "text_model.embeddings.position_ids": [1, 77],
        "text_model.embeddings.position_embedding.weight": [77, width],
        "text_model.embeddings.token_embedding.weight": [config["vocab_size"], width],
        **norm("text_model.final_layer_norm", width),
    }
    for i in range(config["num_hidden_layers"]):
        layer = f"text_model.encoder.layers.{i}"
        shapes |= norm(f"{layer}.layer_norm1", width) | norm(f"{layer}.layer_norm2", width)
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes |= dense(f"{layer}.self_attn.{name}", width, width)
        shapes |= dense(f"{layer}.mlp.fc1", wide, width) | dense(f"{layer}.mlp.fc2", width, wide)
    return shapes
