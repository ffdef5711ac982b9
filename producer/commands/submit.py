"""`img2img`, `text2img` and `chain`: submit a job, and wait for its picture."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from producer.client import Client
from producer.commands.files import Force, require_free, save
from producer.commands.output import AsJson, as_json, out, print_json, say, warnings_as_lines, watch
from producer.commands.times import Deadline, RunAt, times
from producer.request import Img2Img, Request, Text2Img
from storage.errors import InvalidSpec, JobFailed

# Option names are the spec's own; the short forms are those that other tools have.
Prompt = Annotated[str, typer.Option("--prompt", "-p", help="What the picture should show.")]
Negative = Annotated[str, typer.Option("--negative-prompt", "-n", help="What it should not.")]
ModelName = Annotated[str, typer.Option("--model", "-m", help="An alias of models.toml.")]
# Left open, these three are the model's own.
Strength = Annotated[
    float | None, typer.Option("--strength", "-s", help="How far from the input: 0 to 1.")
]
Steps = Annotated[int | None, typer.Option("--steps", help="num_inference_steps: 1 to 1000.")]
Guidance = Annotated[
    float | None, typer.Option("--guidance", "-g", help="guidance_scale; 1 and below: none.")
]
Seed = Annotated[int | None, typer.Option(help="Same seed, same picture. Default: drawn.")]
Width = Annotated[int | None, typer.Option(help="Pixels, a multiple of 8. Default: the input's.")]
Height = Annotated[int | None, typer.Option(help="Pixels, a multiple of 8.")]
SchedulerName = Annotated[
    str | None, typer.Option("--scheduler", help="A class name, or JSON with its fields.")
]
# What only some models have.
Loras = Annotated[
    list[str],
    typer.Option("--lora", help="FILE or FILE=WEIGHT, of the workers' folder; may be repeated."),
]
Weighting = Annotated[
    bool,
    typer.Option("--prompt-weighting", help="(word:1.3) weighs a word."),
]
AestheticScore = Annotated[float | None, typer.Option(help="SDXL's refiner: 0 to 10.")]
NegativeAestheticScore = Annotated[float | None, typer.Option(help="SDXL's refiner: 0 to 10.")]
PriorGuidance = Annotated[
    float | None,
    typer.Option("--prior-guidance", help="Kandinsky's prior_guidance_scale."),
]
PriorSteps = Annotated[
    int | None,
    typer.Option("--prior-steps", help="Kandinsky's prior_num_inference_steps."),
]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", help="A file, or a folder. Default: <job id>.png")
]
Label = Annotated[list[str], typer.Option("--label", "-l", help="name=value; may be repeated.")]
Key = Annotated[str | None, typer.Option(help="The same key again gives the same job.")]
Priority = Annotated[int, typer.Option(help="-100 to 100; higher runs sooner.")]
MaxAttempts = Annotated[int, typer.Option("--max-attempts", help="1 to 20.")]
NoWait = Annotated[bool, typer.Option("--no-wait", help="Say the job's id and leave.")]


def img2img(
    image: Annotated[
        str, typer.Argument(help="The picture to begin from: a file, https://… or s3://bucket/key.")
    ],
    prompt: Prompt,
    negative_prompt: Negative = "",
    model: ModelName = "demo",
    strength: Strength = None,
    steps: Steps = None,
    guidance: Guidance = None,
    seed: Seed = None,
    width: Width = None,
    height: Height = None,
    scheduler: SchedulerName = None,
    lora: Loras = [],  # noqa: B006
    prompt_weighting: Weighting = False,
    aesthetic_score: AestheticScore = None,
    negative_aesthetic_score: NegativeAestheticScore = None,
    prior_guidance: PriorGuidance = None,
    prior_steps: PriorSteps = None,
    label: Label = [],  # noqa: B006  (typer copies it)
    key: Key = None,
    priority: Priority = 0,
    run_at: RunAt = None,
    deadline: Deadline = None,
    max_attempts: MaxAttempts = 3,
    output: Output = None,
    force: Force = False,
    no_wait: NoWait = False,
    as_json: AsJson = False,
) -> None:
    """Make a picture from a picture."""
    request = Img2Img(
        image=image, model=model, prompt=prompt, negative_prompt=negative_prompt,
        strength=strength, num_inference_steps=steps, guidance_scale=guidance, seed=seed,
        width=width, height=height, scheduler=_scheduler(scheduler), loras=_loras(lora),
        prompt_weighting=prompt_weighting, aesthetic_score=aesthetic_score,
        negative_aesthetic_score=negative_aesthetic_score, prior_guidance_scale=prior_guidance,
        prior_num_inference_steps=prior_steps,
    )  # fmt: skip
    around = {
        "labels": labels(label), "key": key, "priority": priority, "max_attempts": max_attempts,
        **times(run_at, deadline),
    }  # fmt: skip
    _run([request], around, output, force, no_wait, as_json)


def text2img(
    prompt: Prompt,
    negative_prompt: Negative = "",
    model: ModelName = "demo",
    steps: Steps = None,
    guidance: Guidance = None,
    seed: Seed = None,
    width: Width = None,
    height: Height = None,
    scheduler: SchedulerName = None,
    lora: Loras = [],  # noqa: B006
    prompt_weighting: Weighting = False,
    aesthetic_score: AestheticScore = None,
    negative_aesthetic_score: NegativeAestheticScore = None,
    prior_guidance: PriorGuidance = None,
    prior_steps: PriorSteps = None,
    label: Label = [],  # noqa: B006
    key: Key = None,
    priority: Priority = 0,
    run_at: RunAt = None,
    deadline: Deadline = None,
    max_attempts: MaxAttempts = 3,
    output: Output = None,
    force: Force = False,
    no_wait: NoWait = False,
    as_json: AsJson = False,
) -> None:
    """Make a picture from a prompt."""
    request = Text2Img(
        model=model, prompt=prompt, negative_prompt=negative_prompt, num_inference_steps=steps,
        guidance_scale=guidance, seed=seed, width=width, height=height,
        scheduler=_scheduler(scheduler), loras=_loras(lora), prompt_weighting=prompt_weighting,
        aesthetic_score=aesthetic_score, negative_aesthetic_score=negative_aesthetic_score,
        prior_guidance_scale=prior_guidance, prior_num_inference_steps=prior_steps,
    )  # fmt: skip
    around = {
        "labels": labels(label), "key": key, "priority": priority, "max_attempts": max_attempts,
        **times(run_at, deadline),
    }  # fmt: skip
    _run([request], around, output, force, no_wait, as_json)


def chain(
    spec: Annotated[
        Path,
        typer.Argument(
            help='A JSON file: {"steps": [{"kind": "img2img", "image": "cat.png", "model": …,'
            ' "prompt": …}, {"kind": "img2img", …}], "keep_steps": true, …}.'
        ),
    ],
    run_at: RunAt = None,
    deadline: Deadline = None,
    output: Output = None,
    force: Force = False,
    no_wait: NoWait = False,
    as_json: AsJson = False,
) -> None:
    """Run steps one after another, each from the result of the one before.

    Steps that share a VAE hand over the latent itself. The first step's image is a path, taken
    from the folder of the file, or a URL.
    """
    requests, around = read_chain(spec)
    _run(requests, {**around, **times(run_at, deadline)}, output, force, no_wait, as_json)


def read_chain(file: Path) -> tuple[list[Request], dict[str, Any]]:
    """A chain's requests, and what holds for them together; raises InvalidSpec."""
    try:
        values = json.loads(file.read_text("utf-8"))
    except OSError as error:
        raise InvalidSpec(f"{file}: {error.strerror}") from None
    except ValueError as error:
        raise InvalidSpec(f"{file}: not JSON: {error}") from None
    steps = values.pop("steps", None) if isinstance(values, dict) else None
    if not isinstance(steps, list) or not all(isinstance(step, dict) for step in steps):
        raise InvalidSpec(f'{file}: it must hold {{"steps": [{{…}}, …]}}')
    return [_request(file, index, step) for index, step in enumerate(steps)], values


def labels(pairs: list[str]) -> dict[str, str]:
    """Labels from `name=value` texts; raises InvalidSpec."""
    for pair in pairs:
        if not all(pair.partition("=")):
            raise InvalidSpec(f"label: {pair!r} is not of the form name=value")
    return dict(pair.split("=", 1) for pair in pairs)


def _request(file: Path, index: int, values: dict[str, Any]) -> Request:
    kinds: dict[Any, type[Request]] = {"text2img": Text2Img, "img2img": Img2Img}
    name = values.pop("kind", None)
    kind = kinds.get(name) if isinstance(name, str) else None
    if kind is None:
        raise InvalidSpec(f"{file}: steps.{index}.kind: must be text2img or img2img")
    image = values.get("image")
    if isinstance(image, str) and (file.parent / image).is_file():
        values["image"] = file.parent / image
    try:
        return kind(**values)
    except InvalidSpec as error:
        raise InvalidSpec(f"{file}: steps.{index}.{error}") from None


def _scheduler(text: str | None) -> str | dict[str, Any] | None:
    if text is None or not text.lstrip().startswith("{"):
        return text
    try:
        found: dict[str, Any] = json.loads(text)
    except ValueError as error:
        raise InvalidSpec(f"scheduler: not JSON: {error}") from None
    return found


def _loras(texts: list[str]) -> list[dict[str, Any]]:
    """LoRAs from `FILE` or `FILE=WEIGHT`; raises InvalidSpec."""
    found = []
    for text in texts:
        path, given, weight = text.rpartition("=")
        try:
            found.append({"path": path, "weight": float(weight)} if given else {"path": text})
        except ValueError:
            raise InvalidSpec(f"lora: {text!r} is not of the form FILE=WEIGHT") from None
    return found


def _run(
    requests: list[Request],
    around: dict[str, Any],
    output: Path | None,
    force: bool,
    no_wait: bool,
    as_lines: bool,
) -> None:
    if no_wait and output is not None:
        raise InvalidSpec("output: --no-wait leaves before there is a picture; fetch it later")
    if output is not None and not output.is_dir():
        require_free(output, force)
    with warnings_as_lines():
        job = Client().submit(requests, **around)
    if no_wait:
        print_json(as_json(job)) if as_lines else out.print(job.id, highlight=False)
        return
    path = output or Path()
    if path.is_dir():
        path = path / f"{job.id}.png"
        require_free(path, force)
    try:
        watch([job], quiet=as_lines)
    except JobFailed:
        if as_lines:
            print_json({**as_json(job), "file": None})
        raise
    save(job, path)
    if as_lines:
        print_json({**as_json(job), "file": str(path)})
    else:
        say(str(path))
