"""The carry: what one step hands to the next, kept in the bucket until the job ends."""

import json

import numpy as np
from PIL import Image
from safetensors.numpy import load, save

from storage.errors import NotFound
from storage.jobs import CarryKind, StepRecord
from storage.models import Model
from storage.objects import Objects, carry_key
from storage.picture import load_picture
from worker.delivery import png
from worker.rendering import Latent, Rendered, RowState

#: How the key of a row that was left in the middle of a step ends.
ROW = "row.safetensors"


def keep(objects: Objects, job_id: str, index: int, rendered: Rendered) -> tuple[str, CarryKind]:
    """Store what step `index` hands over; returns its key and its kind. Repeating is harmless."""
    if rendered.latent is not None:
        key = carry_key(job_id, index, "safetensors")
        values = np.ascontiguousarray(rendered.latent.values)
        data = save({"latent": values}, {"vae_fingerprint": rendered.latent.fingerprint})
        objects.put(key, data, "application/octet-stream")
        return key, "latent"
    assert rendered.picture is not None, "a step that hands over no latent has a picture"
    key = carry_key(job_id, index, "png")
    objects.put(key, png(rendered.picture), "image/png")
    return key, "image"


def fetch(objects: Objects, record: StepRecord, max_pixels: int) -> Image.Image | Latent:
    """What an earlier step handed over, perhaps on another worker."""
    assert record.carry is not None, "only the last step hands nothing over"
    data = objects.get(record.carry)
    if record.carry_kind == "image":
        return load_picture(data, max_pixels)
    fingerprint = record.details["vae_fingerprint"]
    return Latent(values=load(data)["latent"], fingerprint=fingerprint)


def keep_row(objects: Objects, job_id: str, index: int, state: RowState, model: Model) -> None:
    """Store where step `index` is between two denoise steps."""
    arrays = {name: np.ascontiguousarray(value) for name, value in state.items()}
    data = save(arrays, {"model": model.model_dump_json()})
    objects.put(carry_key(job_id, index, ROW), data, "application/octet-stream")


def fetch_row(objects: Objects, job_id: str, index: int, model: Model) -> RowState | None:
    """Where an earlier attempt left step `index`, if it did and the model is still the same."""
    try:
        data = objects.get(carry_key(job_id, index, ROW))
    except NotFound:
        return None
    about = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
    return load(data) if about["model"] == model.model_dump_json() else None


def drop(objects: Objects, job_id: str) -> None:
    """Remove all of it: it is of no use once the job has ended."""
    objects.delete_under(f"carry/{job_id}")
