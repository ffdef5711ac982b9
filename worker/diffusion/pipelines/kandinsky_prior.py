"""Kandinsky's prior: from a prompt to the embedding of an image that it may describe."""

import mindspore as ms
import numpy as np
from mindspore import Tensor

from worker.diffusion.checkpoint import Checkpoint
from worker.diffusion.denoise import Condition, Row, Stage
from worker.diffusion.errors import CheckpointError, PipelineInputError
from worker.diffusion.models.clip_text import ClipTextModelWithProjection
from worker.diffusion.models.load import load_image_encoder, load_prior, load_text_encoder
from worker.diffusion.noise import draw
from worker.diffusion.pipelines.prompts import PromptEncoder, host
from worker.diffusion.schedulers import Plan, make_scheduler
from worker.diffusion.tokenizer import LENGTH, Tokenizer


class KandinskyPrior:
    """A diffusion of image embeddings (Ramesh et al. 2022), told of a text by CLIP."""

    def __init__(self, checkpoint: Checkpoint, dtype: ms.dtype, prefix: str = "") -> None:
        self.dtype = dtype
        self.published_scheduler = checkpoint.config(f"{prefix}scheduler")
        self.prior = load_prior(checkpoint, dtype, f"{prefix}prior")
        self.encode_prompt = PromptEncoder(
            checkpoint.tokenizer(f"{prefix}tokenizer"),
            load_text_encoder(
                checkpoint, dtype, f"{prefix}text_encoder", ClipTextModelWithProjection
            ),
            "text_encoder",
        )
        self.channels = self.prior.config.embedding_dim
        text = self.encode_prompt.text_encoder.config
        widths = {text.hidden_size, text.projection_dim, self.channels}
        if len(widths) > 1 or self.prior.config.num_embeddings != LENGTH:
            raise CheckpointError(
                f"prior embedding_dim is {self.channels} and num_embeddings "
                f"{self.prior.config.num_embeddings}; allowed: the text encoder's hidden_size, "
                f"{text.hidden_size}, and projection_dim, {text.projection_dim}, and {LENGTH}."
            )
        #: What stands for no image at all: the embedding of one whose pixels are zero.
        self.nothing = embedding_of_zeros(checkpoint, dtype, f"{prefix}image_encoder")

    def plan(self, steps: int) -> Plan:
        try:
            return make_scheduler(self.published_scheduler).plan(steps)
        except PipelineInputError as error:
            raise PipelineInputError(f"prior_{error}") from None

    def begin(
        self,
        texts: list[str],
        unwanted: str,
        steps: int,
        guidance_scale: float,
        generator: np.random.Generator,
        then: Stage,
    ) -> Row:
        """A row that makes one embedding for each text, (n, c), before its second stage.

        They are one row's, since they take turns with its random numbers.
        """
        plan = self.plan(steps)
        conditions = [self.conditions(texts)]
        if guidance_scale > 1:
            conditions.insert(0, self.conditions([unwanted] * len(texts)))
        noise = draw(generator, (len(texts), self.channels))
        return Row(
            latent=plan.start[1] * noise,
            plan=plan,
            generator=generator,
            conditions=tuple(conditions),
            guidance_scale=float(guidance_scale),
            then=then,
        )

    def conditions(self, texts: list[str]) -> Condition:
        """Last hidden states (n, 77, c), embeddings (n, c) and masks (n, 77) of n texts."""
        tokenizer = self.encode_prompt.tokenizer
        outputs = [(*self.encode_prompt(text), mask(tokenizer, text)) for text in texts]
        return tuple(np.stack(arrays) for arrays in zip(*outputs, strict=True))

    def predict(
        self, noisy: np.ndarray, timesteps: np.ndarray, *condition: np.ndarray
    ) -> np.ndarray:
        """Clean embeddings (n, k, c) of noisy ones at timesteps (n,)."""
        n, k, c = noisy.shape
        arrays = [a.reshape(n * k, *a.shape[2:]) for a in (noisy, *condition)]
        noisy, *told = (Tensor(np.ascontiguousarray(a)).astype(self.dtype) for a in arrays)
        return host(self.prior(noisy, Tensor(np.repeat(timesteps, k)), *told)).reshape(n, k, c)

    def image_embedding(self, clean: np.ndarray) -> np.ndarray:
        return self.prior.image_embedding(clean)


def mask(tokenizer: Tokenizer, text: str) -> np.ndarray:
    """(77,), 1 for what a text is and 0 for its padding."""
    used = len(tokenizer.starts(text)) + 2
    return (np.arange(LENGTH) < used).astype(np.float32)


def embedding_of_zeros(checkpoint: Checkpoint, dtype: ms.dtype, name: str) -> np.ndarray:
    """(c,). The image encoder is the largest model of all, and this is all that it is for."""
    encoder = load_image_encoder(checkpoint, dtype, name)
    size, channels = encoder.config.image_size, encoder.config.num_channels
    return host(encoder(Tensor(np.zeros((1, channels, size, size), np.float32), dtype)))[0]
