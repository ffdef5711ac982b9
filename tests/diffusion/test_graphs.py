"""Compiled graphs kept on disk give what compiled ones give, and only where they belong."""

import json
import os
import shutil
import time

import numpy as np
import pytest
import tiny
import tiny_kandinsky
import tiny_sdxl
from PIL import Image
from safetensors.numpy import load_file, save_file

from worker.diffusion import Pipeline, graphs, keep_graphs
from worker.diffusion.models import shared

GREY = Image.new("RGB", (64, 64), "grey")


def picture(folder, image=None, **options):
    """A small run in a pipeline that has to compile or load each of its graphs."""
    shared._held.clear()  # else the models would be those of a pipeline before
    pipe = Pipeline.from_pretrained(folder)
    options |= {"num_inference_steps": 2, "seed": 3, "output_type": "np"}
    (result,) = pipe("a cat", image, **options)
    return result


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny.write_stable_diffusion(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def kept(tmp_path_factory, model):
    """A folder with the graphs of a run, and the picture that it made."""
    folder = tmp_path_factory.mktemp("graphs")
    keep_graphs(folder)
    made = picture(model)
    keep_graphs(None)
    return folder, made


@pytest.fixture
def folder(tmp_path, kept):
    """The same graphs, to be used by one test."""
    folder = shutil.copytree(kept[0], tmp_path / "graphs")
    keep_graphs(folder)
    yield folder
    keep_graphs(None)


@pytest.fixture
def found(monkeypatch):
    """Whether each graph that was needed lay ready, in their order."""
    seen = []
    at_hand = graphs.Graphs.at_hand

    def noting(self, key):
        seen.append((self.folder / f"{key}.mindir").exists())
        return at_hand(self, key)

    monkeypatch.setattr(graphs.Graphs, "at_hand", noting)
    return seen


def test_a_picture_is_the_same_to_the_bit(model, kept, folder, found):
    assert np.array_equal(picture(model), kept[1])
    assert found == [True] * 3, "text encoder, UNet, decoder"


@pytest.mark.parametrize("write", [tiny_sdxl.write_base, tiny_kandinsky.write_combined])
def test_so_it_is_in_other_families(tmp_path, folder, found, write):
    model = write(tmp_path / "model")
    compiled = picture(model, GREY, strength=1.0)
    parts = len(found)
    assert found == [False] * parts
    assert np.array_equal(picture(model, GREY, strength=1.0), compiled)
    assert found[parts:] == [True] * parts


def test_other_weights_are_those_of_the_picture(tmp_path, kept, model, folder, found):
    other = tiny.write_stable_diffusion(tmp_path / "other")
    for file in other.glob("unet/*.safetensors"):
        save_file({name: 0.9 * value for name, value in load_file(file).items()}, file)
    keep_graphs(None)
    expected = picture(other)
    keep_graphs(folder)
    assert np.array_equal(picture(other), expected)
    assert np.array_equal(picture(model), kept[1])
    assert not np.array_equal(expected, kept[1])
    assert all(found)


def test_a_file_that_is_no_graph_is_written_anew(kept, model, folder, found):
    files = sorted(folder.iterdir())
    for index, file in enumerate(files):
        file.write_bytes(b"no graph"[: 8 * (index % 2)])
    assert np.array_equal(picture(model), kept[1])
    assert np.array_equal(picture(model), kept[1])
    assert len(found) == 6
    assert sorted(folder.iterdir()) == files
    assert all(file.stat().st_size > 100_000 for file in files)


def test_what_a_model_is_made_of_tells_its_graphs_apart(tmp_path, kept, folder, found):
    other = tiny.write_stable_diffusion(tmp_path / "other")
    config = other / "unet" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"norm_eps": 1e-3}))
    assert np.abs(picture(other) - kept[1]).max() > 1e-4
    assert sorted(found) == [False, True, True], "all but the UNet's"


def test_a_folder_that_cannot_be_made_is_done_without(tmp_path, folder, caplog):
    (tmp_path / "file").write_text("")
    keep_graphs(tmp_path / "file" / "graphs")
    assert "compiled graphs are not kept" in caplog.text


def test_what_nobody_uses_is_removed(tmp_path):
    for name, age in (("old", graphs.UNUSED + 60), ("new", 60)):
        for file in (tmp_path / f"{name}.mindir", tmp_path / f"{name}{graphs.MARK}"):
            file.write_bytes(b"x")
            os.utime(file, (time.time() - age,) * 2)
    keep_graphs(tmp_path)
    keep_graphs(None)
    assert {file.stem for file in tmp_path.iterdir()} == {"new"}
