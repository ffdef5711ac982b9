"""Where a registered model's checkpoint is."""

from pathlib import Path

from storage.errors import InvalidModel
from storage.models import Model


def locate(model: Model) -> str:
    """A local folder or a Hugging Face repository id, as `Pipeline.from_pretrained` takes it."""
    if model.bundled is None:
        return model.source
    folder = Path(__file__).parent / "checkpoints" / model.bundled
    if not (folder / "model_index.json").is_file():
        raise InvalidModel(f"model {model.alias}: no checkpoint {model.bundled!r} ships here")
    return str(folder)
