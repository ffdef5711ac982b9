"""What every family of pipelines offers, and how a checkpoint's family is found."""

import gc
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn
from PIL import Image, ImageOps

from worker.diffusion import denoise, graphs
from worker.diffusion.calls import Calls
from worker.diffusion.checkpoint import Checkpoint
from worker.diffusion.denoise import Row
from worker.diffusion.errors import CheckpointError, PipelineInputError
from worker.diffusion.image import to_array, to_picture, to_pixels, to_rgb
from worker.diffusion.layers import on_ascend
from worker.diffusion.models.load import vae_fingerprint
from worker.diffusion.pipelines.inputs import check_number, check_text
from worker.diffusion.pipelines.prompts import PromptEncoder
from worker.diffusion.preview import Previewer
from worker.diffusion.prompt_weights import parse
from worker.diffusion.schedulers import Scheduler, make_scheduler

DTYPES = {"float32": ms.float32, "float16": ms.float16, "bfloat16": ms.bfloat16}
KEYWORD = inspect.Parameter.KEYWORD_ONLY
OUTPUT_TYPES = ("pil", "np", "latent")
#: The EXIF field.
ORIENTATION = 0x0112


class Pipeline(ABC):
    """A loaded model family: prepare rows, step them together, decode their latents.

    Calling it does all three for one request; a device loop calls the stages itself, so that rows
    of many requests share a step. MindSpore must be used by one thread only.
    """

    #: Short name of the family.
    family: str
    #: The values of `_class_name` in `model_index.json` that mean this family.
    class_names: tuple[str, ...]
    #: How pictures are resized.
    resampling: Mapping[str, Any] = {"resample": Image.Resampling.LANCZOS}
    #: The text encoders, whose embeddings make the conditions.
    prompt_encoders: Sequence[PromptEncoder]

    def __init__(self, checkpoint: Checkpoint, dtype: ms.dtype) -> None:
        self.dtype = dtype
        self.revision = commit(checkpoint.path)
        self.vae_fingerprint = vae_fingerprint(checkpoint)
        self.published_scheduler = checkpoint.config("scheduler")
        self.predictions = Calls(lambda *arrays: (self.predict(*arrays),))
        self.encodings = Calls(self.encode_pixels)
        self.decodings = Calls(lambda latents: (self.decode_latents(latents),))
        self.previewer = Previewer()
        #: By a picture's identity and size: the picture, and what came of it.
        self._encoded: dict[
            tuple[int, tuple[int, int]], tuple[Image.Image, tuple[np.ndarray, ...]]
        ] = {}

    @classmethod
    def from_pretrained(
        cls,
        path_or_repo: str | Path,
        revision: str | None = None,
        variant: str | None = None,
        dtype: str = "float32",
        loras: Sequence[tuple[str | Path, float]] = (),
        prior: str | Path | None = None,
    ) -> "Pipeline":
        """Loads a checkpoint: a folder, a `.safetensors` file, or a repository of the hub.

        `loras` are files of low-rank changes, each with its weight, merged while loading; `prior`
        is Kandinsky's, a folder or repository, where its decoder's card names no other. Raises
        CheckpointError for a checkpoint that is incomplete or of an unknown family, and for a LoRA
        or prior that does not belong to it.
        """
        from worker.diffusion.pipelines.families import FAMILIES

        if dtype not in DTYPES:
            raise CheckpointError(f"dtype is {dtype!r}; allowed: {', '.join(DTYPES)}.")
        if dtype == "bfloat16" and not on_ascend():
            raise CheckpointError("dtype is 'bfloat16', which a CPU does not have; use 'float32'.")
        for _, weight in loras:
            check_number("the weight of a LoRA", weight)
        checkpoint = Checkpoint.open(path_or_repo, revision, variant, loras, prior)
        name = checkpoint.index.get("_class_name")
        for family in FAMILIES:
            if name in family.class_names:
                return family(checkpoint, DTYPES[dtype])
        known = ", ".join(known for family in FAMILIES for known in family.class_names)
        raise CheckpointError(f"{path_or_repo} is made for {name}; pipelines here: {known}.")

    @staticmethod
    def expected_bytes(path_or_repo: str | Path, dtype: str = "float32", **source: Any) -> int:
        """Bytes of the weights that `from_pretrained` with the same arguments will hold."""
        return Checkpoint.open(path_or_repo, **source).numbers * (4 if dtype == "float32" else 2)

    def __call__(
        self,
        prompt: str | Sequence[str],
        image: Any = None,
        *,
        output_type: str = "pil",
        on_step: Callable[[int, int], None] | None = None,
        **options: Any,
    ) -> list[Any]:
        """Runs one row, or as many as the longest list among the arguments; one result a row.

        `options` are those of `prepare`. Results are pictures (`pil`), float32 arrays
        [height, width, 3] in 0..1 (`np`) or float32 latents [C, h, w] as the model scales them
        (`latent`). `on_step(done, total)` is called at the start and after each step; what it
        raises ends the run.
        """
        if output_type not in OUTPUT_TYPES:
            raise PipelineInputError(
                f"output_type is {output_type!r}; allowed: {', '.join(OUTPUT_TYPES)}."
            )
        requests = spread({"prompt": prompt, "image": image, **options})
        self.look_ahead(requests)
        rows = [self.begin(**request) for request in requests]
        total = max((row.total for row in rows), default=0)
        for done in range(total + 1):
            if done:
                self.step([row for row in rows if not row.done])
            if on_step is not None:
                on_step(done, total)
        return self.finish([row.latent for row in rows], output_type)

    def begin(self, prompt: str, image: Any = None, **options: Any) -> Row:
        """`prepare`, with a sentence for an option that the family does not have."""
        allowed = self.options()
        for name in options:
            if name not in allowed:
                raise PipelineInputError(
                    f"{self.family} has no {name}; allowed: {', '.join(allowed)}."
                )
        return self.prepare(prompt, image, **options)

    #: `prepare(prompt, image, **options)`, the options being the family's own, gives a row at its
    #: start: all checks, all encoding and the starting noise are done.
    prepare: Callable[..., Row]

    @classmethod
    def options(cls) -> list[str]:
        """The names of the options of `prepare`."""
        parameters = inspect.signature(cls.prepare).parameters.values()
        return [parameter.name for parameter in parameters if parameter.kind is KEYWORD]

    def step(self, rows: Sequence[Row]) -> None:
        """One denoise step of rows that may be of different requests, schedulers and positions."""
        denoise.step(rows, self.predictions)

    @property
    @abstractmethod
    def models(self) -> list[nn.Cell]:
        """The models on the device; checkpoints that have one in common share it."""

    @property
    def calls(self) -> list[Calls]:
        """Of all that is compiled."""
        encoders = [encoder.encodings for encoder in self.prompt_encoders]
        return [self.predictions, self.encodings, self.decodings, *encoders]

    def forget_graphs(self) -> None:
        """All compiled graphs were freed."""
        for calls in self.calls:
            calls.forget()

    def ask_before_compiling(self, may_compile: Callable[[], bool]) -> None:
        """Another batch size, which only saves time, is compiled when this says yes."""
        for calls in self.calls:
            calls.may_compile = may_compile

    @abstractmethod
    def predict(
        self, latents: np.ndarray, timesteps: np.ndarray, *condition: np.ndarray
    ) -> np.ndarray:
        """The model's output for a batch of one of the compiled sizes."""

    @abstractmethod
    def size(self, image: Any, width: int | None, height: int | None) -> tuple[int, int]:
        """Width and height of the result. Raises PipelineInputError for what cannot be."""

    @abstractmethod
    def cut_off(self, text: str, prompt_weighting: bool = False) -> str:
        """The end of a prompt that is too long to be used; empty where all of it is used."""

    @abstractmethod
    def encode_pixels(self, pixels: np.ndarray) -> tuple[np.ndarray, ...]:
        """What the autoencoder makes of pixels (n, 3, H, W) in -1..1."""

    @abstractmethod
    def decode_latents(self, latents: np.ndarray) -> np.ndarray:
        """Pixels (n, 3, H, W), about -1..1, from latents (n, C, h, w)."""

    def decode_together(self, latents: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Pixels (3, H, W) of each latent [C, h, w]; all of one shape."""
        return [pixels for (pixels,) in self.decodings([(latent,) for latent in latents])]

    def decode(self, latent: np.ndarray) -> np.ndarray:
        """An array [height, width, 3] in 0..1 from a latent [C, h, w].

        Raises FloatingPointError where the result is not finite: a picture would hide that.
        """
        return to_array(self.decode_together([latent])[0])

    def preview(self, latent: np.ndarray) -> Image.Image | None:
        """A small picture of a row's latent; any thread may ask. None where it is no picture."""
        return self.previewer.picture(latent) if latent.ndim == 3 else None

    def upright(self, image: Any) -> Any:
        """A picture turned as its EXIF orientation says; anything else as it is."""
        turned = isinstance(image, Image.Image) and image.getexif().get(ORIENTATION, 1) != 1
        return ImageOps.exif_transpose(image) if turned else image

    def fit(self, image: Image.Image, width: int | None, height: int | None) -> Image.Image:
        """A picture as `prepare` would resize it. Any thread may do that ahead."""
        image = self.upright(image)
        size = self.size(image, width, height)
        return to_rgb(image).resize(size, **self.resampling)

    def encode_picture(self, image: Image.Image, size: tuple[int, int]) -> tuple[np.ndarray, ...]:
        """What the autoencoder makes of a picture, resized."""
        kept = self._encoded.get((id(image), size))
        if kept is not None:
            return kept[1]
        return next(self.encodings([(to_pixels(image, *size, **self.resampling),)]))

    def look_ahead(self, requests: Sequence[Mapping[str, Any]]) -> None:
        """Encodes together what rows that `begin` next with these arguments will need.

        What cannot be encoded is left to `begin`, which says why.
        """
        texts, pictures = [], []
        for request in requests:
            # Of the wrong type or size, by the checks of `prepare`.
            with suppress(PipelineInputError):
                texts += self.texts(request)
            with suppress(PipelineInputError):
                image = self.upright(request.get("image"))
                if isinstance(image, Image.Image):
                    size = self.size(image, request.get("width"), request.get("height"))
                    pictures.append((image, size))
        for encoder in self.prompt_encoders:
            encoder.encode_together(texts)
        self._encoded.clear()
        for alike in {size for _, size in pictures}:
            mine = {id(image): image for image, size in pictures if size == alike}
            pixels = [(to_pixels(image, *alike, **self.resampling),) for image in mine.values()]
            for image, encoded in zip(mine.values(), self.encodings(pixels), strict=True):
                self._encoded[id(image), alike] = image, encoded

    def texts(self, request: Mapping[str, Any]) -> list[str]:
        """The texts that a row will be told of."""
        texts = [request["prompt"], request.get("negative_prompt") or ""]
        weighted = request.get("prompt_weighting", False)
        for text in texts:
            check_text("prompt", text)
        return [parse(text)[0] for text in texts] if weighted else texts

    def device(self, array: np.ndarray) -> Tensor:
        """An array as the models take it."""
        return Tensor(np.ascontiguousarray(array, dtype=np.float32)).astype(self.dtype)

    def as_picture(self, pixels: np.ndarray) -> Image.Image:
        """A picture from decoded pixels (3, H, W). Raises FloatingPointError as `decode`."""
        return to_picture(to_array(pixels))

    def decode_picture(self, latent: np.ndarray) -> Image.Image:
        """A picture from a latent [C, h, w]."""
        return to_picture(self.decode(latent))

    def finish(self, latents: Sequence[np.ndarray], output_type: str) -> list[Any]:
        """Latents in the form that was asked for; those of one shape are decoded together."""
        if output_type == "latent":
            return list(latents)
        give = to_array if output_type == "np" else self.as_picture
        found: dict[int, Any] = {}
        for alike in {latent.shape for latent in latents}:
            mine = [i for i, latent in enumerate(latents) if latent.shape == alike]
            pixels = self.decode_together([latents[i] for i in mine])
            found.update(zip(mine, map(give, pixels), strict=True))
        return [found[i] for i in range(len(latents))]

    def scheduler(self, override: str | Mapping[str, Any] | None = None) -> Scheduler:
        """The checkpoint's scheduler, or the one asked for instead."""
        return make_scheduler(self.published_scheduler, override)

    def scheduler_name(self, override: str | Mapping[str, Any] | None = None) -> str:
        """The class name of the scheduler that a run with this `scheduler` uses."""
        return type(self.scheduler(override)).__name__


def reclaim_memory(pipelines: Iterable[Pipeline] = ()) -> None:
    """Frees the compiled graphs of pipelines that were let go of, which otherwise outlive them.

    MindSpore can only free those of all pipelines: the ones that are still loaded, `pipelines`,
    compile again at their next use.
    """
    gc.collect()
    ms.ms_memory_recycle()
    graphs.forget()
    for pipeline in pipelines:
        pipeline.forget_graphs()


def weight_bytes(pipelines: Iterable[Pipeline]) -> int:
    """Bytes of the weights that pipelines hold, those that they share counted once."""
    models = {id(model): model for pipeline in pipelines for model in pipeline.models}
    parameters = (p for model in models.values() for p in model.get_parameters())
    return sum(p.nbytes for p in parameters)


def commit(path: Path) -> str | None:
    """The commit of a checkpoint that lies in the Hugging Face cache; None for other folders."""
    return path.name if path.parent.name == "snapshots" else None


def spread(arguments: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One set of arguments a row: lists give each row its own value, anything else goes to all."""
    lengths = {name: len(v) for name, v in arguments.items() if isinstance(v, list | tuple)}
    count = max(lengths.values(), default=1)
    for name, length in lengths.items():
        if length != count:
            raise PipelineInputError(f"{name} has {length} values for {count} rows.")
    return [
        {name: value[i] if name in lengths else value for name, value in arguments.items()}
        for i in range(count)
    ]
