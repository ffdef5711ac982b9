"""Published configurations lead to networks with the reference's weights, name by name."""

import json
from pathlib import Path

import pytest
from make_published import configurations, summary

from worker.diffusion.models.clip_text import (
    ClipTextConfig,
    ClipTextModel,
    ClipTextModelWithProjection,
)
from worker.diffusion.models.unet import UNet, UNetConfig
from worker.diffusion.models.vae import Vae, VaeConfig

#: Those whose networks are built here.
BUILT = ("sd15/", "sd21/", "sdxl/", "sdxl-refiner/")
EXPECTED = json.loads((Path(__file__).parents[1] / "reference" / "published.json").read_text())


def build(component, config):
    """The cells of one component."""
    if component == "vae":
        vae = Vae(VaeConfig.from_dict(config))
        return [vae.encoder, vae.decoder]
    if component == "unet":
        return [UNet(UNetConfig.from_dict(config))]
    if config["architectures"] == ["CLIPTextModelWithProjection"]:
        return [ClipTextModelWithProjection(ClipTextConfig.from_dict(config))]
    return [ClipTextModel(ClipTextConfig.from_dict(config))]


CONFIGURATIONS = {name: c for name, c in configurations() if name.startswith(BUILT)}


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_a_published_configuration_leads_to_the_references_weights(name):
    cells = build(name.split("/")[1], CONFIGURATIONS[name])
    shapes = {key: p.shape for cell in cells for key, p in cell.parameters_and_names()}
    assert summary(shapes) == EXPECTED[name]
