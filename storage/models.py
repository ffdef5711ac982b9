"""The models that jobs may name: aliases for checkpoints."""

import difflib
import re
import tomllib
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from storage.errors import InvalidSpec, NotConfigured, UnknownModel
from storage.settings import Settings
from storage.spec import (
    Guidance,
    SchedulerChoice,
    Step,
    StepCount,
    Strength,
    explained,
    whole_size,
)

MODELS_FILE = "models.toml"
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
#: How `source` names a checkpoint that ships with the worker.
BUNDLED = "bundled:"
#: What a model may say for steps that leave it open.
DEFAULTS = ("scheduler", "num_inference_steps", "guidance_scale", "strength")


class Model(BaseModel):
    """Where a model's checkpoint comes from, how it is loaded, and what holds for its steps."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    alias: Annotated[str, Field(min_length=1, max_length=400)]
    #: A local folder, a Hugging Face repository id, or `bundled:<name>`.
    source: Annotated[str, Field(min_length=1)]
    revision: str | None = None
    variant: str | None = None
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    #: Kandinsky: where the prior is that turns a prompt into an image embedding. Default: where
    #: the checkpoint itself says.
    prior: Annotated[str, Field(min_length=1)] | None = None
    #: Workers of this pool serve it.
    pool: Annotated[str, Field(min_length=1, max_length=100)] = "default"

    # For steps that name none. None: the default of the model's family in diffusers.
    scheduler: SchedulerChoice | None = None
    num_inference_steps: StepCount | None = None
    guidance_scale: Guidance | None = None
    strength: Strength | None = None

    #: What a result's sides may be, in pixels, and how many pixels it may have.
    min_side: Annotated[int, Field(gt=0)] | None = None
    max_side: Annotated[int, Field(gt=0)] | None = None
    max_pixels: Annotated[int, Field(gt=0)] | None = None

    def __hash__(self) -> int:
        return hash(self.alias)  # a scheduler's fields are a dict, which has no hash

    @property
    def bundled(self) -> str | None:
        """The name of the checkpoint that ships with the worker, if this is one."""
        return self.source.removeprefix(BUNDLED) if self.source.startswith(BUNDLED) else None

    def fill(self, step: Step) -> Step:
        """The step with this model's values where it names none; raises InvalidSpec."""
        values = dict(step)
        own = {name: getattr(self, name) for name in DEFAULTS if values.get(name, 0) is None}
        with explained():
            return type(step)(**{**values, **own})

    def check_size(self, width: int | None, height: int | None) -> None:
        """Raises InvalidSpec for a size that this model is not allowed; None is not known yet."""
        for name, side in (("width", width), ("height", height)):
            if side is None:
                continue
            if not (self.min_side or 1) <= side <= (self.max_side or side):
                raise InvalidSpec(f"{name}: {self._sides()} (got {side})")
        if width and height and self.max_pixels and width * height > self.max_pixels:
            raise InvalidSpec(
                f"width x height: model {self.alias} allows at most {self.max_pixels:,} pixels"
                f" (got {width}x{height}, {width * height:,})"
            )

    def _sides(self) -> str:
        least = f"at least {self.min_side}" if self.min_side else ""
        most = f"at most {self.max_side}" if self.max_side else ""
        return f"model {self.alias} allows sides of {' and '.join(filter(None, (least, most)))}"


def load_models(settings: Settings) -> dict[str, Model]:
    """The package's models, then the installation's, by alias; raises NotConfigured."""
    package = files("storage").joinpath(MODELS_FILE).read_text("utf-8")
    models = _parse(package, "the package's models.toml")
    own = settings.models_file or settings.home / MODELS_FILE
    if settings.models_file or own.exists():
        try:
            text = own.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise NotConfigured(f"models_file: {own} cannot be read: {error}") from None
        models |= _parse(text, str(own))
    return models


def find_model(models: dict[str, Model], name: str, settings: Settings) -> Model:
    """The model that a job names; raises UnknownModel."""
    if name in models:
        return models[name]
    if settings.allow_any_model and name and (Path(name).is_dir() or _REPOSITORY.fullmatch(name)):
        return Model(alias=name, source=name)
    close = difflib.get_close_matches(name, models, n=3)
    hint = f"; did you mean {' or '.join(close)}?" if close else ""
    raise UnknownModel(f"model: {name!r} is not known (known: {', '.join(sorted(models))}){hint}")


def check_chain(
    steps: Sequence[Step],
    models: dict[str, Model],
    settings: Settings,
    size: tuple[int, int] | None = None,
) -> None:
    """What can be known of a job's models before it runs; `size` is the input picture's.

    Raises UnknownModel, or InvalidSpec for a value or a size that a model is not allowed, and for
    a chain whose models are of more than one pool.
    """
    first: Model | None = None
    width, height = whole_size(*size) if size else (None, None)
    for index, step in enumerate(steps):
        model = find_model(models, step.model, settings)
        first = first or model
        if model.pool != first.pool:
            raise InvalidSpec(
                f"steps.{index}.model: {model.alias!r} is of pool {model.pool!r}, but the chain's"
                f" first, {first.alias!r}, of {first.pool!r}: workers of one pool run it all"
            )
        model.fill(step)
        width, height = step.width or width, step.height or height
        try:
            model.check_size(width, height)
        except InvalidSpec as error:
            raise InvalidSpec(f"steps.{index}.{error}") from None


def _parse(text: str, place: str) -> dict[str, Model]:
    try:
        tables: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise NotConfigured(f"{place}: {error}") from None
    models = {}
    for alias, table in tables.items():
        if not isinstance(table, dict):
            raise NotConfigured(f"{place}: {alias}: a model is a table: [{alias}]")
        try:
            models[alias] = Model(**{**table, "alias": alias})
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            field = ".".join(str(part) for part in first["loc"])
            raise NotConfigured(f"{place}: {alias}.{field}: {first['msg']}") from None
    return models
