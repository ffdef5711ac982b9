"""Where a registered model's checkpoint is."""

from pathlib import Path

from storage.errors import InvalidModel
from storage.models import Model

BUNDLED = "bundled:"


def locate(model: Model) -> str:
    """A local folder or a Hugging Face repository id, as `Pipeline.from_pretrained` takes it."""
    if not model.source.startswith(BUNDLED):
        return model.source
    name = model.source.removeprefix(BUNDLED)
    folder = Path(__file__).parent / "checkpoints" / name
    if not (folder / "model_index.json").is_file():
        raise InvalidModel(f"model {model.alias}: no checkpoint named {name!r} ships here")
    return str(folder)
