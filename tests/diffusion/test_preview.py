"""A preview shows what the decoder would, from a linear map learnt in passing."""

import numpy as np

from worker.diffusion.noise import make_generator
from worker.diffusion.preview import Previewer


def pair(seed: int, height: int = 8, width: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """A latent, and pixels whose blocks have colours that are linear in it."""
    generator = make_generator(seed)
    latent = generator.standard_normal((4, height, width), dtype=np.float32)
    mix = np.linspace(-0.2, 0.3, 12, dtype=np.float32).reshape(3, 4)
    colours = np.tensordot(mix, latent, axes=1) + 0.1
    pixels = np.repeat(np.repeat(colours, 8, axis=1), 8, axis=2)
    texture = generator.standard_normal(pixels.shape, dtype=np.float32).reshape(3, height, 8, -1)
    return latent, pixels + (texture - texture.mean(axis=2, keepdims=True)).reshape(
        pixels.shape
    ) / 9


def test_a_map_learnt_from_one_picture_shows_another() -> None:
    previewer = Previewer()
    previewer.learn(*pair(1))
    latent, pixels = pair(2, 64, 64)
    shown = np.asarray(previewer.picture(latent), np.float32) / 255
    expected = np.clip(pixels.reshape(3, 64, 8, 64, 8).mean(axis=(2, 4)) / 2 + 0.5, 0, 1)
    assert np.abs(shown - expected.transpose(1, 2, 0)).mean() < 0.03


def test_a_preview_has_the_pictures_form_and_64_pixels_at_most() -> None:
    previewer = Previewer()
    assert previewer.picture(pair(1, 8, 16)[0]).size == (64, 32)
    assert previewer.picture(pair(1, 128, 96)[0]).size == (48, 64)


def test_before_anything_is_known_and_for_broken_latents_there_is_a_picture_too() -> None:
    previewer = Previewer()
    previewer.learn(np.full((4, 8, 8), np.nan, np.float32), pair(1)[1])
    for latent in (np.zeros((1, 8, 8), np.float32), np.full((4, 8, 8), np.nan, np.float32)):
        assert previewer.picture(latent).mode == "RGB"
    previewer.learn(*pair(1))
    assert previewer.picture(np.full((4, 8, 8), np.inf, np.float32)).size == (64, 64)
