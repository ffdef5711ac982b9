"""The spec: what was asked for, validated once, immutable ever after, JSON on the wire."""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import zip_longest
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from storage.errors import InvalidSpec

#: Sizes are multiples of this: the VAE's downscale of every supported family.
SIZE_MULTIPLE = 8
MAX_SIDE = 4096
MAX_STEPS_IN_CHAIN = 16
MAX_SEED = 2**63 - 1
#: Class names that the engine implements.
SCHEDULERS = (
    "DDIMScheduler",
    "DDPMScheduler",
    "DPMSolverMultistepScheduler",
    "EulerAncestralDiscreteScheduler",
    "EulerDiscreteScheduler",
    "HeunDiscreteScheduler",
    "LCMScheduler",
    "PNDMScheduler",
    "UnCLIPScheduler",
    "UniPCMultistepScheduler",
)

Size = Annotated[int, Field(ge=64 // SIZE_MULTIPLE, le=MAX_SIDE, multiple_of=SIZE_MULTIPLE)]
StepCount = Annotated[int, Field(ge=1, le=1000)]
Guidance = Annotated[float, Field(ge=0, le=100)]
Strength = Annotated[float, Field(ge=0, le=1)]


def _implemented(value: str | dict[str, Any]) -> str | dict[str, Any]:
    name = value.get("class") if isinstance(value, dict) else value
    if name not in SCHEDULERS:
        raise ValueError(
            f"{name!r} is not one of {', '.join(SCHEDULERS)}, or one of them with fields of"
            ' its own: {"class": name, field: value}'
        )
    return value


#: A class name, or {"class": name, **config overrides}.
SchedulerChoice = Annotated[str | dict[str, Any], AfterValidator(_implemented)]


_CONTROLS = re.compile(r"[\x00-\x1f\x7f]")


def _printable(value: str) -> str:
    if _CONTROLS.search(value):
        raise ValueError("control characters are not allowed")
    return value


def _place(value: str) -> str:
    """A text with :// is a URL of a kind that is fetched, any other a key."""
    if "://" in value and not re.match(r"(s3|https?)://[^/?#\s]+[/?#]?", value):
        raise ValueError("a URL must be of the form s3://bucket/key or https://host/path")
    return _printable(value)


ImagePlace = Annotated[str, Field(min_length=1, max_length=2048), AfterValidator(_place)]
_PLACE: TypeAdapter[str] = TypeAdapter(ImagePlace)


def _web(value: str) -> str:
    if not re.match(r"https?://[^/?#@\s]+([/?#]|$)", value):
        raise ValueError("a URL must be of the form https://host/path, without a user or password")
    return _printable(value)


WebhookUrl = Annotated[str, Field(min_length=1, max_length=2048), AfterValidator(_web)]

#: Labels and keys: columns of their own, which Postgres keeps without NUL.
Name = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_printable)]


def _in_utc(value: datetime) -> datetime:
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise ValueError("a year of 1 to 9999 in UTC") from None


#: A point in time; on the wire ISO 8601 with its offset from UTC.
Time = Annotated[AwareDatetime, AfterValidator(_in_utc)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Lora(_Frozen):
    """Low-rank changes of a model's weights, merged while it is loaded."""

    #: A file of the workers' `loras_dir`.
    path: Annotated[str, Field(min_length=1, max_length=400)]
    weight: Annotated[float, Field(ge=-10, le=10)] = 1.0


class _Step(_Frozen):
    """What every pipeline run takes. Names are those of diffusers' pipelines.

    None means the model's own: the value that models.toml gives it, else the default of its family
    in diffusers. The worker that runs the step decides it, and the step's record and its picture
    say what it was; the spec in the ledger stays as it was asked.
    """

    model: Annotated[str, Field(min_length=1, max_length=400)]
    prompt: Annotated[str, Field(max_length=20_000)]
    negative_prompt: Annotated[str, Field(max_length=20_000)] = ""
    num_inference_steps: StepCount | None = None
    guidance_scale: Guidance | None = None
    #: None: drawn at submission, so that the spec in the ledger always has one.
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)] | None = None
    width: Size | None = None
    height: Size | None = None
    scheduler: SchedulerChoice | None = None
    #: `(word:1.3)` in a prompt weighs the word; otherwise brackets are text.
    prompt_weighting: bool = False
    loras: Annotated[tuple[Lora, ...], Field(max_length=8, strict=False)] = ()
    # What only some families have.
    #: SDXL's refiner: how the picture, and how the unwanted one, would be rated.
    aesthetic_score: Annotated[float, Field(ge=0, le=10)] | None = None
    negative_aesthetic_score: Annotated[float, Field(ge=0, le=10)] | None = None
    #: SDXL: the shares of the whole way at which a step ends, and at which the next one begins.
    denoising_end: Annotated[float, Field(gt=0, lt=1)] | None = None
    #: Kandinsky: the same for the prior that turns the prompt into an image embedding.
    prior_guidance_scale: Guidance | None = None
    prior_num_inference_steps: StepCount | None = None


class Text2Img(_Step):
    """A picture from a prompt."""

    kind: Literal["text2img"] = "text2img"


class Img2Img(_Step):
    """A picture from a picture. Width and height None: the input's own, rounded down to 8."""

    kind: Literal["img2img"] = "img2img"
    #: `inputs/…` or another key of the bucket, `s3://bucket/key` or `https://…`. None: what the
    #: step before hands over.
    image: ImagePlace | None = None
    strength: Strength | None = None
    #: SDXL: with it the input is a latent that is still noisy, and `strength` does not matter.
    denoising_start: Annotated[float, Field(gt=0, lt=1)] | None = None

    @model_validator(mode="after")
    def _some_step_runs(self) -> Self:
        steps, strength = self.num_inference_steps, self.strength
        if self.denoising_start is not None or strength is None:
            return self
        # Whatever the model's own number of steps is: none runs at 0.
        if strength == 0 or (steps is not None and int(steps * strength) < 1):
            least = f": it must be at least {1 / steps:.4g}" if steps else ""
            of = f" of {steps} steps" if steps else ""
            raise ValueError(f"strength {strength}{of} leaves no step to run{least}")
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
    #: None: at once.
    run_at: Time | None = None
    #: A job that has not ended by then fails.
    deadline: Time | None = None
    max_attempts: Annotated[int, Field(ge=1, le=20)] = 3
    labels: dict[Name, Name] = Field(default_factory=dict, max_length=32)
    #: Store the picture of every step, not only the last one's.
    keep_steps: bool = False
    #: Called with POST when the job has ended; see docs/integrate.md.
    webhook_url: WebhookUrl | None = None
    #: A result of one colour, or equal to its input, fails the job with `bad_output`.
    check_output: bool = True

    @model_validator(mode="after")
    def _leaves_time_to_run(self) -> Self:
        if self.run_at and self.deadline and self.deadline <= self.run_at:
            raise ValueError(
                f"deadline: {self.deadline.isoformat()} must be after run_at"
                f" ({self.run_at.isoformat()})"
            )
        return self

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

    @model_validator(mode="after")
    def _what_is_left_noisy_is_gone_on_with(self) -> Self:
        for index, (step, following) in enumerate(zip_longest(self.steps, self.steps[1:])):
            start = getattr(following, "denoising_start", None)
            if step.denoising_end != start:
                raise ValueError(
                    f"steps.{index}.denoising_end is {step.denoising_end}, but the next step's"
                    f" denoising_start {start}: it goes on where this one ends"
                )
        if self.steps and getattr(self.steps[0], "denoising_start", None) is not None:
            raise ValueError("steps.0.denoising_start: there is no step before it to go on from")
        return self


def whole_size(width: int, height: int) -> tuple[int, int]:
    """The size of a result that has its picture's: rounded down."""
    return width - width % SIZE_MULTIPLE, height - height % SIZE_MULTIPLE


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


def check_place(image: str) -> None:
    """Raises InvalidSpec for a text that cannot say where a picture is."""
    try:
        _PLACE.validate_python(image)
    except ValidationError as error:
        raise InvalidSpec(f"image: {next(iter(_sentences(error)))}") from None


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
