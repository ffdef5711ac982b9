"""Results as people and programs find them: a PNG that says how it was made."""

import io
import json
from importlib.metadata import version
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from storage.models import Model
from storage.spec import Img2Img, Spec, Step
from worker.device_loop import Rendered


def png(picture: Image.Image, text: dict[str, str] | None = None) -> bytes:
    """A picture as PNG bytes, with text chunks."""
    info = PngInfo()
    for key, value in (text or {}).items():
        info.add_text(key, value)
    out = io.BytesIO()
    picture.save(out, "PNG", pnginfo=info)
    return out.getvalue()


def describe(
    spec: Spec, index: int, model: Model, rendered: Rendered, runtime: dict[str, str]
) -> dict[str, str]:
    """The text chunks of step `index`: `parameters` as A1111 writes it, `latentmill` in full."""
    step = spec.steps[index]
    full: dict[str, Any] = {
        "spec": spec.model_dump(mode="json"),
        "step": index,
        "seed": step.seed,
        "model": {
            "alias": model.alias,
            "source": model.source,
            "revision": rendered.model_revision or model.revision,
            "variant": model.variant,
            "dtype": model.dtype,
            "vae_fingerprint": rendered.vae_fingerprint,
        },
        "inputs": [s.image for s in spec.steps if isinstance(s, Img2Img) and s.image],
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
        "Steps": step.num_inference_steps,
        "Sampler": rendered.scheduler,
        "CFG scale": step.guidance_scale,
        "Seed": step.seed,
        "Size": f"{rendered.width}x{rendered.height}",
        "Model": step.model,
    }
    if isinstance(step, Img2Img):
        fields["Denoising strength"] = step.strength
    fields["Version"] = f"latentmill {version('latentmill')}"
    lines = [step.prompt]
    if step.negative_prompt:
        lines.append(f"Negative prompt: {step.negative_prompt}")
    lines.append(", ".join(f"{name}: {value}" for name, value in fields.items()))
    return "\n".join(lines)
