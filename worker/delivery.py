"""Results as people and programs find them: a PNG that says how it was made."""

import io
import json
from importlib.metadata import version
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from storage.models import Model
from storage.spec import Img2Img, Spec, Step
from worker.rendering import Rendered


def png(picture: Image.Image, text: dict[str, str] | None = None) -> bytes:
    """A picture as PNG bytes, with text chunks."""
    info = PngInfo()
    for key, value in (text or {}).items():
        info.add_text(key, value)
    out = io.BytesIO()
    picture.save(out, "PNG", pnginfo=info)
    return out.getvalue()


def describe(
    spec: Spec,
    index: int,
    model: Model,
    rendered: Rendered,
    key: str | None,
    runtime: dict[str, str],
) -> dict[str, str]:
    """The text chunks of step `index`: `parameters` as A1111 writes it, `latentmill` in full.

    `key` is where the job's input is kept. It stands for a URL, which may hold a secret.
    """
    step = spec.steps[index]
    first = spec.steps[0]
    if isinstance(first, Img2Img):
        steps = (first.model_copy(update={"image": key}), *spec.steps[1:])
        spec = spec.model_copy(update={"steps": steps})
    full: dict[str, Any] = {
        "spec": spec.model_dump(mode="json"),
        "step": index,
        "seed": step.seed,
        "options": dict(rendered.options),
        "model": {
            "alias": model.alias,
            "source": model.source,
            "revision": rendered.model_revision or model.revision,
            "variant": model.variant,
            "dtype": model.dtype,
            "vae_fingerprint": rendered.vae_fingerprint,
        },
        "inputs": [key] if key else [],
        "versions": {"latentmill": version("latentmill"), "mindspore": runtime["mindspore"]},
        "device": runtime["device"],
    }
    return {
        "parameters": parameters(step, rendered),
        "latentmill": json.dumps(full, ensure_ascii=False, sort_keys=True),
    }


def parameters(step: Step, rendered: Rendered) -> str:
    """Generation parameters in the form that A1111 writes and most tools read."""
    fields = {
        "Steps": rendered.options["num_inference_steps"],
        "Sampler": rendered.scheduler,
        "CFG scale": rendered.options["guidance_scale"],
        "Seed": step.seed,
        "Size": f"{rendered.width}x{rendered.height}",
        "Model": step.model,
    }
    if isinstance(step, Img2Img):
        fields["Denoising strength"] = rendered.options["strength"]
    fields["Version"] = f"latentmill {version('latentmill')}"
    lines = [step.prompt]
    if step.negative_prompt:
        lines.append(f"Negative prompt: {step.negative_prompt}")
    lines.append(", ".join(f"{name}: {value}" for name, value in fields.items()))
    return "\n".join(lines)
