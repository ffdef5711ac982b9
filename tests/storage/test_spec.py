from typing import Any

import pytest

from storage.errors import InvalidSpec
from storage.spec import Img2Img, Spec, Text2Img, make_step, parse_spec

STEP = {"kind": "text2img", "model": "demo", "prompt": "a red square"}
NEXT = {"kind": "img2img", "model": "demo", "prompt": "then blue"}


def test_a_spec_survives_its_way_over_the_wire() -> None:
    spec = Spec(
        steps=(
            Text2Img(model="demo", prompt="赤い四角", seed=2**63 - 1, width=64, height=128),
            Img2Img(
                model="demo", prompt="", scheduler={"class": "DDIMScheduler", "steps_offset": 1}
            ),
        ),
        key="k",
        labels={"ä": "ö"},
    )
    assert parse_spec(spec.model_dump_json()) == spec
    assert parse_spec(spec.model_dump_json().encode()) == spec
    assert parse_spec(spec.model_dump(mode="json")) == spec


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"guidance": 3}, "steps.0.guidance: no such field"),
        ({"num_inference_steps": 0}, r"steps.0.num_inference_steps: .*greater.* 1 \(got '0'\)"),
        ({"num_inference_steps": 1001}, r"num_inference_steps: .*less.* 1000 \(got '1001'\)"),
        ({"guidance_scale": float("nan")}, r"steps.0.guidance_scale: .*finite number"),
        ({"guidance_scale": "high"}, r"guidance_scale: .*valid number.*\(got 'high'\)"),
        ({"seed": -1}, r"steps.0.seed: .*greater.* 0 \(got '-1'\)"),
        ({"width": 100}, r"steps.0.width: .*multiple of 8 \(got '100'\)"),
        ({"height": 5000}, r"steps.0.height: .*4096 \(got '5000'\)"),
        ({"scheduler": {"name": "x"}}, 'steps.0.scheduler: .*"class": name'),
        ({"model": ""}, "steps.0.model: .*at least 1 character"),
        ({"kind": "txt2vid"}, "steps.0: .*'text2img', 'img2img'"),
        ({"strength": 0.5}, "steps.0.strength: no such field"),
    ],
)
def test_what_is_wrong_in_a_step_is_named_with_what_is_allowed(
    change: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(InvalidSpec, match=sentence):
        parse_spec({"steps": [{**STEP, **change}]})


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ({}, "steps: Field required"),
        ({"steps": []}, r"steps: a job has 1 to 16 \(got 0\)"),
        ({"steps": [STEP] + [NEXT] * 16}, r"steps: a job has 1 to 16 \(got 17\)"),
        (
            {"steps": [{**STEP, "denoising_end": 0.8}, NEXT]},
            r"steps\.0\.denoising_end is 0\.8, but the next step's denoising_start None",
        ),
        (
            {"steps": [{**STEP, "denoising_end": 0.8}, {**NEXT, "denoising_start": 0.7}]},
            r"denoising_end is 0\.8, but the next step's denoising_start 0\.7",
        ),
        ({"steps": [{**STEP, "denoising_end": 0.8}]}, r"steps\.0\.denoising_end is 0\.8"),
        (
            {"steps": [STEP, {**NEXT, "denoising_start": 0.8}]},
            r"steps\.0\.denoising_end is None, but the next step's denoising_start 0\.8",
        ),
        (
            {"steps": [{**NEXT, "image": "inputs/a.png", "denoising_start": 0.8}]},
            r"steps\.0\.denoising_start: there is no step before it",
        ),
        ({"steps": [STEP, STEP]}, "steps.1: text2img can only begin a chain"),
        ({"steps": [NEXT]}, "steps.0.image: the first step of a job has no step before it"),
        ({"steps": [STEP, {**NEXT, "image": "inputs/a.png"}]}, "steps.1.image: a later step takes"),
        ({"steps": [STEP, {**NEXT, "strength": 0.01, "num_inference_steps": 50}]}, "at least 0.02"),
        ({"steps": [STEP, {**NEXT, "strength": 0.0}]}, "strength 0.0 leaves no step to run"),
        ({"steps": [{**NEXT, "image": "ftp://a/b"}]}, "steps.0.image: a URL must be of the form"),
        ({"steps": [{**NEXT, "image": "https://a/\n"}]}, "steps.0.image: control characters"),
        ({"steps": [STEP], "priority": 101}, r"priority: .*100 \(got '101'\)"),
        ({"steps": [STEP], "max_attempts": 0}, r"max_attempts: .*1 \(got '0'\)"),
        ({"steps": [STEP], "labels": {"a": ""}}, "labels.a: .*at least 1 character"),
        ({"steps": [STEP], "labels": {str(n): "x" for n in range(33)}}, "labels: .*at most 32"),
        ({"steps": [STEP], "key": ""}, "key: .*at least 1 character"),
        ({"steps": [STEP], "key": "a\0b"}, "key: .*control characters"),
        ({"steps": [STEP], "labels": {"a": "b\0"}}, "labels.a: .*control characters"),
        ({"steps": [STEP], "sooner": True}, "sooner: no such field"),
        ("{", "Invalid JSON"),
        ([], "valid dictionary"),
    ],
)
def test_what_is_wrong_in_a_spec_is_named_with_what_is_allowed(spec: Any, sentence: str) -> None:
    with pytest.raises(InvalidSpec, match=sentence):
        parse_spec(spec)


def test_every_mistake_is_named_at_once() -> None:
    with pytest.raises(InvalidSpec, match=r"steps.0.seed: .*; steps.0.width: "):
        parse_spec({"steps": [{**STEP, "seed": -1, "width": 3}]})


def test_make_step_explains_as_well() -> None:
    with pytest.raises(InvalidSpec, match=r"strength: .*less.* 1 \(got '1.5'\)"):
        make_step(Img2Img, model="demo", prompt="", image="inputs/a.png", strength=1.5)


def test_a_spec_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        parse_spec({"steps": [STEP]}).priority = 1  # type: ignore[misc]
