"""The carry: what one step hands to the next, kept in the bucket until the job ends."""

import numpy as np
from PIL import Image
from safetensors.numpy import load, save

from storage.jobs import CarryKind, StepRecord
from storage.objects import Objects, carry_key
from storage.picture import load_picture
from worker.delivery import png
from worker.device_loop import Latent, Rendered


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


def drop(objects: Objects, records: tuple[StepRecord, ...]) -> None:
    """Remove what is of no use once the job has ended."""
    for record in records:
        if record.carry is not None:
            objects.delete(record.carry)
