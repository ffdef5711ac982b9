"""A single file in the original naming gives what its folder gives; each key is accounted for."""

import json
import math

import numpy as np
import pytest
import tiny
import tiny_original
from make_pipelines import HERE, arguments
from make_published import summary
from original_shapes import file_shapes
from safetensors.numpy import load_file, save_file
from tiny_original import KINDS, weights, write_file, write_folder

from tests.fresh_process import run_python
from tests.hub import running_hub
from worker.diffusion import CheckpointError, Pipeline
from worker.diffusion.checkpoint import Checkpoint
from worker.diffusion.models import (
    ClipTextConfig,
    UNetConfig,
    VaeConfig,
    load_text_encoder,
    load_unet,
    load_vae,
)
from worker.diffusion.schedulers import make_scheduler
from worker.diffusion.single_file import without_last_layer
from worker.diffusion.weights import shape


@pytest.fixture(scope="module", params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    return {kind: write_file(kind, folder / f"{kind}.safetensors") for kind in KINDS}


def parts(kind):
    return KINDS[kind].keys() - {"scheduler"}


def test_every_tensor_becomes_what_the_references_conversion_makes_of_it(files, kind):
    checkpoint = Checkpoint.open(files[kind])
    for component in parts(kind):
        expected = weights(kind, component)
        loaded = checkpoint.weights(component)
        assert loaded.keys() == expected.keys()
        for key, tensor in loaded.items():
            assert shape(key, tensor) == expected[key].shape, key
            np.testing.assert_array_equal(tensor.float32().squeeze(), expected[key].squeeze(), key)


def test_the_configurations_are_those_of_the_folder(files, kind):
    checkpoint, folder = Checkpoint.open(files[kind]), KINDS[kind]
    assert checkpoint.index | tiny_original.CLASSES[kind] == checkpoint.index
    assert_same_unet(checkpoint.config("unet"), folder["unet"])
    assert VaeConfig.from_dict(checkpoint.config("vae")) == VaeConfig.from_dict(folder["vae"])
    for component in parts(kind) - {"unet", "vae"}:
        assert_same_encoder(component, checkpoint.config(component), folder[component])
    inferred, expected = checkpoint.config("scheduler"), folder["scheduler"]
    assert make_scheduler(inferred) == make_scheduler(expected)


def assert_same_unet(inferred, expected):
    read = [UNetConfig.from_dict(config) for config in (inferred, expected)]
    assert differences(*read) <= {"transformer_layers_per_block"}
    last = len(read[0].down_block_types) - 1
    for i, block in enumerate(read[0].down_block_types):
        if "CrossAttn" in block or i == last:
            assert len({config.transformer_layers_per_block[i] for config in read}) == 1


def assert_same_encoder(component, inferred, expected):
    read = [ClipTextConfig.from_dict(config) for config in (inferred, expected)]
    # The first text encoder projects nothing.
    assert differences(*read) <= ({"projection_dim"} if component == "text_encoder" else set())


def differences(a, b):
    return {key for key, value in vars(a).items() if getattr(b, key) != value}


PUBLISHED = {"sd15": "sd1", "sd21": "sd2", "sdxl": "sdxl", "sdxl-refiner": "refiner"}


def write_sparse(path, shapes):
    """A file of half-precision zeros that takes no place on the disk."""
    header, end = {}, 0
    for key, sides in shapes.items():
        start, end = end, end + 2 * math.prod(sides)
        header[key] = {"dtype": "F16", "shape": sides, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_file_of_published_size_leads_to_the_published_networks(name, tmp_path):
    published = json.loads((HERE / "published" / f"{name}.json").read_text())
    digests = json.loads((HERE / "published.json").read_text())
    write_sparse(tmp_path / "model.safetensors", file_shapes(PUBLISHED[name], published))
    checkpoint = Checkpoint.open(tmp_path / "model.safetensors")
    for component in published:
        tensors = checkpoint.weights(component)
        shapes = {key: shape(key, tensor) for key, tensor in tensors.items()}
        assert summary(shapes) == digests[f"{name}/{component}"]
    unet, vae = checkpoint.config("unet"), checkpoint.config("vae")
    assert_same_unet(unet, published["unet"])
    assert unet["sample_size"] == published["unet"]["sample_size"]
    assert VaeConfig.from_dict(vae) == VaeConfig.from_dict(published["vae"])
    for component in published.keys() - {"unet", "vae"}:
        assert_same_encoder(component, checkpoint.config(component), published[component])


def picture(path, **changes):
    given = {"image": (64, 64), "strength": 0.6, "num_inference_steps": 2, **changes}
    pipe = Pipeline.from_pretrained(path)
    return pipe, pipe(**arguments(given), output_type="np")[0]


@pytest.mark.parametrize("kind", ["sd1", "sd2", "sdxl"])
def test_pictures_are_those_of_the_folder_bit_for_bit(files, kind, tmp_path):
    pipe, single = picture(files[kind])
    other, expected = picture(write_folder(kind, tmp_path))
    assert pipe.vae_fingerprint == other.vae_fingerprint
    assert pipe.family == other.family
    assert pipe.revision is None
    side = {"sd1": 512, "sd2": 768, "sdxl": 1024}[kind]
    assert pipe.default_size == (side, side)
    np.testing.assert_array_equal(single, expected)
    assert single.std() > 0.1


def test_a_refiner_loads_strictly_as_its_folder_does(files, tmp_path):
    paths = files["refiner"], write_folder("refiner", tmp_path)
    pipes = [Pipeline.from_pretrained(path) for path in paths]
    assert pipes[0].takes_score
    assert len({pipe.vae_fingerprint for pipe in pipes}) == 1
    first, second = (dict(pipe.unet.parameters_and_names()) for pipe in pipes)
    assert first.keys() == second.keys()
    assert all(np.array_equal(first[key].asnumpy(), second[key].asnumpy()) for key in first)


def test_a_2_base_is_run_with_another_prediction(files):
    override = {"class": "PNDMScheduler", "prediction_type": "epsilon"}
    overridden = make_scheduler(Checkpoint.open(files["sd2"]).config("scheduler"), override)
    assert overridden == make_scheduler(tiny.SCHEDULER)


@pytest.mark.parametrize("kind", ["sd1", "sd2"])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_models_load_strictly_from_a_file_of_either_type(files, kind, dtype, tmp_path):
    file = tmp_path / "half.safetensors"
    save_file({k: v.astype(dtype) for k, v in load_file(files[kind]).items()}, file)
    checkpoint = Checkpoint.open(file)
    vae = load_vae(checkpoint)
    cells = {
        "unet": [load_unet(checkpoint)],
        "vae": [vae.encoder, vae.decoder],
        "text_encoder": [load_text_encoder(checkpoint)],
    }
    for name, parts in cells.items():
        for key, parameter in (pair for part in parts for pair in part.parameters_and_names()):
            expected = weights(kind, name)[key].astype(dtype).astype(np.float32)
            np.testing.assert_array_equal(parameter.asnumpy().squeeze(), expected.squeeze(), key)


def changed(files, kind, folder, **extra):
    """The file with more tensors, or without those given as None."""
    tensors = {**load_file(files[kind]), **extra}
    file = folder / "changed.safetensors"
    save_file({key: value for key, value in tensors.items() if value is not None}, file)
    return file


NOTHING = np.zeros(1, np.float32)


@pytest.mark.parametrize(
    "key",
    [
        "model_ema.decay",
        "model_ema.diffusion_modelinput_blocks00weight",
        "betas",
        "alphas_cumprod",
        "alphas_cumprod_prev",
        "sqrt_alphas_cumprod",
        "sqrt_one_minus_alphas_cumprod",
        "log_one_minus_alphas_cumprod",
        "sqrt_recip_alphas_cumprod",
        "sqrt_recipm1_alphas_cumprod",
        "posterior_variance",
        "posterior_log_variance_clipped",
        "posterior_mean_coef1",
        "lvlb_weights",
        "logvar",
        "denoiser.sigmas",
        "first_stage_model.loss.discriminator.main.0.weight",
        "cond_stage_model.transformer.text_model.embeddings.position_ids",
        "cond_stage_model.transformer.vision_model.encoder.layers.0.mlp.fc1.weight",
        "cond_stage_model.transformer.text_projection.weight",
        "cond_stage_model.logit_scale",
    ],
)
def test_keys_that_are_no_weights_are_dropped(files, tmp_path, key):
    checkpoint = Checkpoint.open(changed(files, "sd1", tmp_path, **{key: NOTHING}))
    for component in parts("sd1"):
        assert checkpoint.weights(component).keys() == weights("sd1", component).keys()


@pytest.mark.parametrize(
    ("key", "sentence"),
    [
        ("edm_mean", "1 keys that no Stable Diffusion 1.x has: edm_mean."),
        ("my_betas", "1 keys that no Stable Diffusion 1.x has: my_betas."),
    ],
)
def test_keys_of_no_part_are_refused_by_name(files, tmp_path, key, sentence):
    file = changed(files, "sd1", tmp_path, **{key: NOTHING})
    with pytest.raises(CheckpointError) as caught:
        Checkpoint.open(file)
    assert sentence in str(caught.value)


UNKNOWN = (
    "model.diffusion_model.input_blocks.1.0.in_layers.1.weight",
    "model.diffusion_model.label_emb.weight",
    "first_stage_model.encoder.mid.attn_2.q.weight",
    "cond_stage_model.transformer.text_model.encoder.layers.0.extra",
)


@pytest.mark.parametrize("key", UNKNOWN)
def test_keys_unknown_to_a_part_are_unexpected_and_named_in_full(files, tmp_path, key):
    checkpoint = Checkpoint.open(changed(files, "sd1", tmp_path, **{key: NOTHING}))
    name = key.removeprefix("cond_stage_model.transformer.")
    with pytest.raises(CheckpointError, match=rf"1 unexpected: {name}\."):
        [load(checkpoint) for load in (load_unet, load_vae, load_text_encoder)]


@pytest.mark.parametrize(
    ("kind", "key", "sentence"),
    [
        ("sd1", "model.diffusion_model.out.2.bias", "1 missing: conv_out.bias"),
        ("sd1", "model.diffusion_model.out.2.weight", "damaged; unet: out.2.weight is missing"),
        ("sd1", "first_stage_model.quant_conv.bias", "1 missing: quant_conv.bias"),
        ("sd2", "cond_stage_model.model.ln_final.bias", "1 missing: text_model.final_layer_norm"),
        (
            "sd2",
            "cond_stage_model.model.transformer.resblocks.0.attn.in_proj_bias",
            "3 missing: text_model.encoder.layers.0.self_attn.k_proj.bias",
        ),
    ],
)
def test_missing_weights_are_named(files, tmp_path, kind, key, sentence):
    checkpoint = Checkpoint.open(changed(files, kind, tmp_path, **{key: None}))
    with pytest.raises(CheckpointError) as caught:
        [load(checkpoint) for load in (load_unet, load_vae, load_text_encoder)]
    assert sentence in str(caught.value)


def test_marks_of_another_prediction_are_read(files, tmp_path):
    file = changed(files, "sdxl", tmp_path, v_pred=NOTHING, ztsnr=NOTHING)
    scheduler = make_scheduler(Checkpoint.open(file).config("scheduler"))
    assert scheduler.prediction_type == "v_prediction"
    assert scheduler.rescale_betas_zero_snr


def test_the_last_layer_is_left_out_unless_it_was_already():
    for layers, left in ((24, 23), (23, 23), (4, 3)):
        keys = [f"transformer.resblocks.{i}.ln_1.bias" for i in range(layers)]
        assert len(without_last_layer(dict.fromkeys(keys))) == left


@pytest.mark.parametrize(
    ("tensors", "sentence"),
    [
        ({"lora_unet_x.lora_down.weight": NOTHING}, "is a LoRA, which is given as loras="),
        ({"double_blocks.0.x": NOTHING}, "this has double_blocks.0.x."),
        ({"model.diffusion_model.joint_blocks.0.x": NOTHING}, "is no checkpoint of Stable"),
    ],
)
def test_a_file_of_another_kind_is_refused(tmp_path, tensors, sentence):
    save_file(tensors, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError) as caught:
        Pipeline.from_pretrained(tmp_path / "other.safetensors")
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".ckpt", ".pt", ".pth", ".bin"])
@pytest.mark.parametrize("there", [True, False])
def test_a_pickle_is_refused_with_the_way_to_convert_it(tmp_path, suffix, there):
    file = tmp_path / f"model{suffix}"
    if there:
        file.write_bytes(b"\x80\x02}q\x00.")
    with pytest.raises(CheckpointError, match=r"is a pickle.*from_single_file\(FILE\)\.save_pre"):
        Pipeline.from_pretrained(file)


def test_a_file_that_is_not_there_is_not_looked_for_on_the_hub(tmp_path):
    with pytest.raises(CheckpointError, match=r"model\.safetensors is not there\.$"):
        Pipeline.from_pretrained(tmp_path / "model.safetensors")
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(CheckpointError, match=r"notes\.txt is no \.safetensors file"):
        Pipeline.from_pretrained(tmp_path / "notes.txt")


def test_a_single_file_has_no_variants(files):
    with pytest.raises(CheckpointError, match=r"variant is 'fp16', but .* is a single file"):
        Pipeline.from_pretrained(files["sd1"], variant="fp16")


def test_openclip_pads_with_its_first_token(files):
    for kind, component, padding in (
        ("sd1", "tokenizer", 576),
        ("sd2", "tokenizer", 0),
        ("sdxl", "tokenizer", 576),
        ("sdxl", "tokenizer_2", 0),
        ("refiner", "tokenizer_2", 0),
    ):
        assert Checkpoint.open(files[kind]).tokenizer(component)("")[-1] == padding


TOKENIZE = """
import sys
from worker.diffusion.checkpoint import Checkpoint
try:
    print(Checkpoint.open(sys.argv[1]).tokenizer("tokenizer")("a cat!"))
except Exception as error:
    print(type(error).__name__, error)
"""


def test_without_a_tokenizer_beside_it_the_vocabulary_comes_from_the_hub(files, tmp_path):
    clip, alone = tmp_path / "clip", tmp_path / "alone.safetensors"
    tiny.write_tokenizer(clip)
    alone.symlink_to(files["sd2"])
    with running_hub({"openai/clip-vit-large-patch14": clip}) as hub:
        address = f"http://127.0.0.1:{hub.server_port}"
        environment = {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "cache")}
        fetched = run_python(TOKENIZE, str(alone), **environment)
    cached = run_python(TOKENIZE, str(alone), **environment)
    absent = run_python(TOKENIZE, str(alone), **environment | {"HF_HOME": str(tmp_path / "empty")})
    assert json.loads(fetched) == Checkpoint.open(files["sd2"]).tokenizer("tokenizer")("a cat!")
    assert cached == fetched
    assert absent.startswith("HubError The hub did not answer")
    assert "into a folder named tokenizer beside" in absent
