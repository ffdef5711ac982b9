"""A small picture of a latent that is still on its way, without the decoder."""

import numpy as np
from PIL import Image

#: Pixels on the longer side.
SIDE = 64


class Previewer:
    """The linear map from a latent's channels to colours, learnt from pairs of both.

    A position of a latent is the mean colour of its pixels, nearly enough for a map of C + 1
    numbers for each colour; the encoder and decoder give the pairs in passing. So it fits any
    autoencoder, and follows it.
    """

    def __init__(self) -> None:
        self._map: np.ndarray | None = None

    def learn(self, latent: np.ndarray, pixels: np.ndarray) -> None:
        """From a latent (C, h, w) and its pixels (3, H, W) in -1..1."""
        if self._map is not None or not (np.isfinite(latent).all() and np.isfinite(pixels).all()):
            return
        _, height, width = latent.shape
        blocks = pixels.reshape(
            3, height, pixels.shape[1] // height, width, pixels.shape[2] // width
        )
        colours = blocks.mean(axis=(2, 4)).reshape(3, -1).T
        self._map = np.linalg.lstsq(_terms(latent), colours, rcond=None)[0]

    def picture(self, latent: np.ndarray) -> Image.Image:
        """A picture of at most SIDE pixels a side, from a latent (C, h, w)."""
        channels, height, width = latent.shape
        latent = np.nan_to_num(latent, posinf=0.0, neginf=0.0)
        if self._map is not None and len(self._map) == channels + 1:
            colours = (_terms(latent) @ self._map + 1) / 2
        else:
            # Nothing is known yet: the first channels, each stretched over its range.
            three = [0, 1 % channels, 2 % channels]
            colours = latent.reshape(channels, -1)[three].T
            colours = colours - colours.min(axis=0)
            colours = colours / np.maximum(colours.max(axis=0), 1e-6)
        values = (np.clip(colours, 0, 1) * 255).round().astype(np.uint8)
        picture = Image.fromarray(values.reshape(height, width, 3))
        scale = SIDE / max(width, height)
        size = max(1, round(width * scale)), max(1, round(height * scale))
        return picture.resize(size, Image.Resampling.BILINEAR)


def _terms(latent: np.ndarray) -> np.ndarray:
    """(h * w, C + 1): each position's channels, and one."""
    values = latent.reshape(len(latent), -1).T
    return np.concatenate([values, np.ones((len(values), 1), values.dtype)], axis=1)
