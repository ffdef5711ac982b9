"""The spec: what was asked for, validated once, immutable ever after, JSON on the wire."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from storage.errors import InvalidSpec

#: Sizes are multiples of this: the VAE's downscale of every supported family.
SIZE_MULTIPLE = 8
MAX_SIDE = 4096
MAX_STEPS_IN_CHAIN = 16
MAX_SEED = 2**63 - 1
#: Class names that the engine implements.
SCHEDULERS = ("DDIMScheduler", "EulerDiscreteScheduler", "PNDMScheduler")

Size = Annotated[int, Field(ge=64 // SIZE_MULTIPLE, le=MAX_SIDE, multiple_of=SIZE_MULTIPLE)]


def _printable(value: str) -> str:
    if any(ord(character) < 32 or ord(character) == 127 for character in value):
        raise ValueError("control characters are not allowed")
    return value


#: Labels and keys: columns of their own, which Postgres keeps without NUL.
Name = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_printable)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class _Step(_Frozen):
    """What every pipeline run takes. Names and defaults are those of diffusers' pipelines."""

    model: Annotated[str, Field(min_length=1, max_length=400)]
    prompt: Annotated[str, Field(max_length=20_000)]
    negative_prompt: Annotated[str, Field(max_length=20_000)] = ""
    num_inference_steps: Annotated[int, Field(ge=1, le=1000)] = 50
    guidance_scale: Annotated[float, Field(ge=0, le=100)] = 7.5
    #: None: drawn at submission, so that the spec in the ledger always has one.
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)] | None = None
    #: None: the model's own size.
    width: Size | None = None
    height: Size | None = None
    #: None: the model's own; a class name; or {"class": name, **config overrides}.
    scheduler: str | dict[str, Any] | None = None

    @field_validator("scheduler")
    @classmethod
    def _is_known(cls, value: str | dict[str, Any] | None) -> str | dict[str, Any] | None:
        name = value.get("class") if isinstance(value, dict) else value
        if value is not None and name not in SCHEDULERS:
            raise ValueError(
                f"{name!r} is not one of {', '.join(SCHEDULERS)}, or one of them with fields of"
                ' its own: {"class": name, field: value}'
            )
        return value


class Text2Img(_Step):
    """A picture from a prompt."""

    kind: Literal["text2img"] = "text2img"


class Img2Img(_Step):
    """A picture from a picture. Width and height None: the input's own, rounded down to 8."""

    kind: Literal["img2img"] = "img2img"
    #: `inputs/…` or another key of the bucket. None: what the step before hands over.
    image: Annotated[str, Field(min_length=1, max_length=1024)] | None = None
    strength: Annotated[float, Field(ge=0, le=1)] = 0.8

    @model_validator(mode="after")
    def _some_step_runs(self) -> Self:
        if int(self.num_inference_steps * self.strength) < 1:
            raise ValueError(
                f"strength {self.strength} of {self.num_inference_steps} steps leaves no step to"
                f" run: it must be at least {1 / self.num_inference_steps:.4g}"
            )
        return self


Step = Text2Img | Img2Img
StepKind = TypeVar("StepKind", Text2Img, Img2Img)


class Spec(_Frozen):
    """One job: a chain of 1..16 steps and what holds for them together."""

    steps: tuple[Annotated[Step, Field(discriminator="kind")], ...]
    #: Idempotency: submitting the same key again returns the job there is.
    key: Name | None = None
    #: Higher runs sooner.
    priority: Annotated[int, Field(ge=-100, le=100)] = 0
    max_attempts: Annotated[int, Field(ge=1, le=20)] = 3
    labels: dict[Name, Name] = Field(default_factory=dict, max_length=32)
    #: Store the picture of every step, not only the last one's.
    keep_steps: bool = False

    @model_validator(mode="after")
    def _each_step_has_its_picture(self) -> Self:
        if not 1 <= len(self.steps) <= MAX_STEPS_IN_CHAIN:
            raise ValueError(f"steps: a job has 1 to {MAX_STEPS_IN_CHAIN} (got {len(self.steps)})")
        for index, step in enumerate(self.steps):
            if isinstance(step, Text2Img):
                if index > 0:
                    raise ValueError(f"steps.{index}: text2img can only begin a chain")
            elif index == 0 and step.image is None:
                raise ValueError("steps.0.image: the first step of a job has no step before it")
            elif index > 0 and step.image is not None:
                raise ValueError(
                    f"steps.{index}.image: a later step takes the picture of the step before it"
                )
        return self


def parse_spec(data: Any) -> Spec:
    """A spec from JSON text, bytes or plain values; InvalidSpec names the field."""
    with explained():
        if isinstance(data, str | bytes):
            return Spec.model_validate_json(data)
        return Spec.model_validate(data, strict=False)


def make_step(kind: type[StepKind], **values: Any) -> StepKind:
    """A step from keyword values; InvalidSpec names the field and what it allows."""
    with explained():
        return kind(**values)


@contextmanager
def explained() -> Iterator[None]:
    """Turn pydantic's errors into one InvalidSpec for people."""
    try:
        yield
    except ValidationError as error:
        raise InvalidSpec("; ".join(_sentences(error))) from None


def _sentences(error: ValidationError) -> Iterable[str]:
    for item in error.errors(include_url=False):
        place = ".".join(str(part) for part in item["loc"] if part not in ("text2img", "img2img"))
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            message = "no such field"
        shown = item["input"]
        scalar = isinstance(shown, str | int | float | bool) and item["type"] != "extra_forbidden"
        got = f" (got {str(shown)[:80]!r})" if scalar and item["type"] != "missing" else ""
        yield f"{place}: {message}{got}" if place else message
