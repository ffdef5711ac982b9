"""LoRAs are merged as the reference fuses them, in every naming, and nothing of one is ignored."""

import json

import mindspore as ms
import numpy as np
import pytest
import tiny
import tiny_lora
import tiny_original
import tiny_sd2
import tiny_sdxl
from make_lora import CASES, FILES, RUN, XL_WEIGHT
from make_pipelines import HERE, arguments
from safetensors.numpy import load_file, save_file

from worker.diffusion import CheckpointError, Pipeline, PipelineInputError
from worker.diffusion.checkpoint import Checkpoint
from worker.diffusion.lora_names import module_names
from worker.diffusion.models import load_text_encoder, load_unet, vae_fingerprint

WORST, MEAN = 1 / 255, 2e-4
QUERY = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny.write_stable_diffusion(tmp_path_factory.mktemp("stable-diffusion"))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("loras")
    return {name: write(folder / f"{name}.safetensors") for name, write in FILES.items()}


@pytest.fixture(scope="module")
def expected():
    return np.load(HERE / "lora.npz")


@pytest.fixture(scope="module")
def pipe(folder, files):
    return Pipeline.from_pretrained(folder, loras=[(files["kohya"], 0.8)])


def errors(pipe, expected):
    """The worst and the mean difference of two pictures in 0..1."""
    (result,) = pipe(**arguments(RUN), output_type="np")
    difference = np.abs(result - expected.astype(np.float32))
    return float(difference.max()), float(difference.mean())


def give(pipe, folder, loras):
    """Other weights in place: a compiled model goes on reading the memory it was given."""
    checkpoint = Checkpoint.open(folder, loras=loras)
    cells = {"unet": pipe.unet, "text_encoder": pipe.encode_prompt.text_encoder}
    for name, cell in cells.items():
        loaded = checkpoint.weights(name)
        for key, parameter in cell.parameters_and_names():
            parameter.asnumpy()[...] = loaded[key].float32()
    pipe.encode_prompt._kept.clear()


def test_a_pipeline_loaded_with_a_lora_gives_the_references_picture(pipe, expected):
    worst, mean = errors(pipe, expected["kohya"])
    assert worst <= WORST
    assert mean <= MEAN


@pytest.mark.parametrize("name", CASES)
def test_the_picture_equals_the_references(pipe, folder, files, expected, name):
    give(pipe, folder, [(files[file], weight) for file, weight in CASES[name].items()])
    worst, mean = errors(pipe, expected[name])
    assert worst <= WORST
    assert mean <= MEAN


def test_the_comparison_notices_another_weight_and_a_missing_layer(
    pipe, folder, files, expected, tmp_path
):
    tensors = load_file(files["kohya"])
    for key in list(tensors):
        if key.startswith("lora_te_text_model_encoder_layers_1_self_attn_v_proj."):
            del tensors[key]
    save_file(tensors, tmp_path / "less.safetensors")
    for lora in ((files["kohya"], 0.7), (tmp_path / "less.safetensors", 0.8)):
        give(pipe, folder, [lora])
        worst, mean = errors(pipe, expected["kohya"])
        assert worst > 10 * WORST
        assert mean > 10 * MEAN


def weights(folder, *loras, component="unet"):
    checkpoint = Checkpoint.open(folder, loras=loras)
    return {key: tensor.float32() for key, tensor in checkpoint.weights(component).items()}


@pytest.mark.parametrize("component", ["unet", "text_encoder"])
def test_a_weight_of_zero_changes_no_bit_and_two_loras_add_up(folder, files, component):
    plain = weights(folder, component=component)
    for file in files.values():
        zero = weights(folder, (file, 0.0), component=component)
        assert all(zero[key].tobytes() == plain[key].tobytes() for key in plain)
    first, second = (files["kohya"], 0.5), (files["diffusers"], -2)
    alone = [weights(folder, lora, component=component) for lora in (first, second)]
    both = weights(folder, first, second, component=component)
    changed = {key for key in plain if (both[key] != plain[key]).any()}
    assert len(changed) == {"unet": 15, "text_encoder": 4}[component]
    for key, value in both.items():
        total = alone[0][key] + alone[1][key] - plain[key]
        np.testing.assert_allclose(value, total, atol=1e-5, err_msg=key)


def test_the_vae_stays_the_same(folder, files):
    with_lora = Checkpoint.open(folder, loras=[(files["kohya"], 1.0)])
    assert vae_fingerprint(with_lora) == vae_fingerprint(Checkpoint.open(folder))


@pytest.mark.parametrize("module", [QUERY, "down_blocks.1.resnets.0.conv1"])
def test_what_is_added_is_the_product_times_weight_and_alpha_by_rank(folder, files, module):
    rank = {**tiny_lora.UNET, **tiny_lora.CONVOLUTIONS}[module]
    down, up = (m.reshape(len(m), -1) for m in tiny_lora.matrices("unet", module, rank, "kohya"))
    plain = tiny.weights("unet")[f"{module}.weight"]
    change = 0.8 * 2.0 / rank * (up.astype(float) @ down.astype(float)).reshape(plain.shape)
    merged = weights(folder, (files["kohya"], 0.8))[f"{module}.weight"]
    assert np.abs(change).max() > 0.05
    np.testing.assert_allclose(merged, plain + change, atol=1e-6)


def test_float16_weights_are_merged_in_float32(folder, files):
    lora = (files["kohya"], 0.8)
    checkpoint = Checkpoint.open(folder, loras=[lora])
    for component, load in (("unet", load_unet), ("text_encoder", load_text_encoder)):
        exact = weights(folder, lora, component=component)
        for key, parameter in load(checkpoint, ms.float16).parameters_and_names():
            assert parameter.dtype == ms.float16
            np.testing.assert_array_equal(parameter.asnumpy(), exact[key].astype(np.float16), key)


def test_a_lora_in_half_precision_with_a_whole_alpha_is_read(folder, files, tmp_path):
    tensors = load_file(files["kohya"])
    for key, value in tensors.items():
        is_alpha = key.endswith(".alpha")
        tensors[key] = value.astype(np.int64) if is_alpha else value.astype(np.float16)
    save_file(tensors, tmp_path / "half.safetensors")
    half, full = (
        weights(folder, (f, 0.8)) for f in (tmp_path / "half.safetensors", files["kohya"])
    )
    assert all(np.abs(half[key] - full[key]).max() < 2e-3 for key in full)


def renamed(files, tmp_path, rename, source="kohya"):
    file = tmp_path / "renamed.safetensors"
    save_file({rename(key): value for key, value in load_file(files[source]).items()}, file)
    return file


@pytest.mark.parametrize(
    ("source", "rename"),
    [
        ("kohya", lambda key: key.replace("lora_te_", "lora_te1_")),
        ("diffusers", lambda key: key.replace("lora_A", "lora.down").replace("lora_B", "lora.up")),
        (
            "diffusers",
            lambda key: key.replace("lora_A", "lora_linear_layer.down").replace(
                "lora_B", "lora_linear_layer.up"
            ),
        ),
        ("diffusers", lambda key: key.replace("text_encoder.text_model.", "text_encoder.")),
        ("diffusers", lambda key: key.removeprefix("unet.")),
        ("processors", lambda key: key.removeprefix("unet.")),
    ],
)
def test_every_naming_means_the_same_layers(folder, files, tmp_path, source, rename):
    file = renamed(files, tmp_path, rename, source)
    assert load_file(file).keys() != load_file(files[source]).keys()
    for component in ("unet", "text_encoder"):
        expected = weights(folder, (files[source], 1.0), component=component)
        found = weights(folder, (file, 1.0), component=component)
        assert all(np.array_equal(found[key], expected[key]) for key in expected)


@pytest.mark.parametrize("kind", tiny_original.KINDS)
def test_original_names_of_the_unets_layers_mean_what_the_reference_takes_them_for(kind):
    table = tiny_original.table(kind)
    names = module_names(
        {name: list(shapes) for name, shapes in table["shapes"].items() if name != "vae"}
    )
    prefix = "model.diffusion_model."
    tried = 0
    for key, (shape, _, component, (*there,)) in table["origins"].items():
        if component == "unet" and key.endswith(".weight") and len(shape) > 1:
            flat = key.removeprefix(prefix).removesuffix(".weight").replace(".", "_")
            assert names[f"lora_unet_{flat}"] == ("unet", there[0])
            flat = there[0].removesuffix(".weight").replace(".", "_")
            assert names[f"lora_unet_{flat}"] == ("unet", there[0])
            tried += 1
    assert tried > 70


def test_xls_weights_become_the_references_in_its_unet_and_both_text_encoders(expected, tmp_path):
    folder = tiny_sdxl.write_base(tmp_path / "base")
    lora = (tiny_lora.write_kohya_xl(tmp_path / "lora.safetensors"), XL_WEIGHT)
    for component, count in (("unet", 15), ("text_encoder", 3), ("text_encoder_2", 3)):
        plain = tiny_lora.fingerprints(weights(folder, component=component))
        merged = tiny_lora.fingerprints(weights(folder, lora, component=component))
        assert (np.abs(merged - plain) > 1e-3).sum() == count
        np.testing.assert_allclose(merged, expected[f"xl_{component}"], atol=1e-5)


def test_the_second_text_encoder_has_a_name_of_its_own():
    shapes = tiny_original.table("sdxl")["shapes"]
    names = module_names({name: list(shapes[name]) for name in ("text_encoder", "text_encoder_2")})
    layer = "text_model_encoder_layers_0_mlp_fc1"
    key = "text_model.encoder.layers.0.mlp.fc1.weight"
    assert names[f"lora_te1_{layer}"] == ("text_encoder", key)
    assert names[f"lora_te2_{layer}"] == ("text_encoder_2", key)
    assert names["lora_te2_text_projection"] == ("text_encoder_2", "text_projection.weight")


def test_a_single_file_takes_loras_as_its_folder_does(tmp_path):
    down, up = np.ones((1, 32), np.float32), np.ones((32, 1), np.float32)
    name = "lora_unet_input_blocks_1_1_transformer_blocks_0_attn1_to_q"
    lora = tmp_path / "lora.safetensors"
    save_file({f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up}, lora)
    single = tiny_original.write_file("sd1", tmp_path / "single.safetensors")
    folder = tiny_original.write_folder("sd1", tmp_path / "folder")
    plain, first, second = weights(single), weights(single, (lora, 2)), weights(folder, (lora, 2))
    assert all(np.array_equal(first[key], second[key]) for key in plain)
    np.testing.assert_allclose(first[f"{QUERY}.weight"], plain[f"{QUERY}.weight"] + 2)


KOHYA = f"lora_unet_{QUERY.replace('.', '_')}"
DOWN, UP = np.ones((4, 32), np.float32), np.ones((32, 4), np.float32)
PAIR = {f"{KOHYA}.lora_down.weight": DOWN, f"{KOHYA}.lora_up.weight": UP}


@pytest.mark.parametrize(
    ("tensors", "sentence"),
    [
        (
            PAIR | {f"{KOHYA}.dora_scale": DOWN},
            f"is DoRA, which is not merged, only plain LoRA is: it holds {KOHYA}.dora_scale.",
        ),
        ({f"{KOHYA}.lora_magnitude_vector": DOWN}, "is DoRA, which"),
        ({f"{KOHYA}.lokr_w1": DOWN}, "is LoKr, which"),
        ({f"{KOHYA}.hada_w1_a": DOWN}, "is LoHa, which"),
        ({f"{KOHYA}.oft_blocks": DOWN}, "is OFT, which"),
        (PAIR | {f"{KOHYA}.lora_mid.weight": DOWN}, "is LoRA in three matrices (Tucker), which"),
        (PAIR | {f"{KOHYA}.lora_up.bias": DOWN}, "is LoRA with biases, which"),
        (PAIR | {f"{KOHYA}.diff_b": DOWN}, "is a list of whole changes"),
        (PAIR | {"bundle_emb.x.string_to_param.*": DOWN}, "is a textual inversion"),
        (PAIR | {"extra": DOWN}, "1 keys are none of a LoRA: extra."),
        (
            {"lora_unet_nothing.lora_down.weight": DOWN, "lora_unet_nothing.lora_up.weight": UP},
            "1 keys belong to no layer of this checkpoint: lora_unet_nothing.",
        ),
        (
            {f"lora_te2_{i}.alpha": np.ones(1, np.float32) for i in range(7)},
            "7 keys belong to no layer of this checkpoint: lora_te2_0, lora_te2_1, lora_te2_2, "
            "lora_te2_3, lora_te2_4, ….",
        ),
        ({f"{KOHYA}.lora_down.weight": DOWN}, f"1 layers lack one of their two matrices: {KOHYA}."),
        (
            PAIR | {f"{KOHYA}.lora_down.weight": np.ones((4, 33), np.float32)},
            f"1 layers have another size here: {KOHYA} "
            "(is [32, 4] by [4, 33], should make [32, 32]).",
        ),
        (PAIR | {f"{KOHYA}.lora_down.weight": np.ones((5, 32), np.float32)}, "another size here"),
        (PAIR | {f"{KOHYA}.lora_down.weight": np.ones(4, np.float32)}, "another size here"),
        (
            PAIR | {f"{KOHYA}.lora_down.weight": DOWN.astype(np.int32)},
            f"1 keys are none of a LoRA: {KOHYA}.lora_down.weight.",
        ),
        (
            PAIR | {f"unet.{QUERY}.lora_A.weight": DOWN, f"unet.{QUERY}.lora_B.weight": UP},
            f"changes unet {QUERY}.weight twice",
        ),
        ({}, "holds no LoRA."),
    ],
)
def test_what_cannot_be_merged_whole_is_refused(folder, tmp_path, tensors, sentence):
    file = tmp_path / "lora.safetensors"
    save_file(tensors, file)
    for weight in (1.0, 0.0):
        with pytest.raises(CheckpointError) as caught:
            Checkpoint.open(folder, loras=[(file, weight)])
        assert sentence in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("metadata", "sentence"),
    [
        ("{", "its lora_adapter_metadata is no JSON object."),
        ("[]", "its lora_adapter_metadata is no JSON object."),
        (json.dumps({"unet.lora_alpha": "x"}), "has an alpha of 'x'"),
    ],
)
def test_metadata_that_cannot_be_read_is_refused(folder, tmp_path, metadata, sentence):
    file = tmp_path / "lora.safetensors"
    save_file(PAIR, file, {"lora_adapter_metadata": metadata})
    with pytest.raises(CheckpointError) as caught:
        Checkpoint.open(folder, loras=[(file, 1.0)])
    assert sentence in str(caught.value)


def test_a_lora_of_another_family_is_refused(files, tmp_path):
    folder = tiny_sd2.write_stable_diffusion_2(tmp_path)
    with pytest.raises(CheckpointError, match="belong to no layer of this checkpoint"):
        Pipeline.from_pretrained(folder, loras=[(files["kohya"], 1.0)])


@pytest.mark.parametrize("suffix", [".pt", ".bin", ".ckpt"])
def test_a_pickle_is_refused_with_the_way_to_convert_it(folder, tmp_path, suffix):
    file = tmp_path / f"lora{suffix}"
    file.write_bytes(b"\x80\x02}q\x00.")
    with pytest.raises(CheckpointError, match=r"is a pickle.*torch\.load\(FILE, weights_only=True"):
        Pipeline.from_pretrained(folder, loras=[(file, 1.0)])


def test_a_lora_that_is_not_there_or_damaged_is_named(folder, tmp_path):
    file = tmp_path / "lora.safetensors"
    with pytest.raises(CheckpointError, match=r"lora\.safetensors is not there\."):
        Pipeline.from_pretrained(folder, loras=[(file, 1.0)])
    file.write_bytes(b"{}")
    with pytest.raises(CheckpointError, match=r"lora\.safetensors is damaged"):
        Pipeline.from_pretrained(folder, loras=[(file, 1.0)])


@pytest.mark.parametrize("weight", ["1", float("nan"), None, True])
def test_the_weight_must_be_a_number(folder, files, weight):
    with pytest.raises(PipelineInputError, match=r"weight of a LoRA is .*; it must be a number"):
        Pipeline.from_pretrained(folder, loras=[(files["kohya"], weight)])
