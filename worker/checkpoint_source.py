"""Where a registered model's checkpoint is, and where the LoRA files are that jobs may name."""

from pathlib import Path

from storage.errors import InvalidModel, InvalidSpec
from storage.models import Model
from storage.settings import Settings
from storage.spec import Lora


def locate(model: Model) -> str:
    """A local folder or a Hugging Face repository id, as `Pipeline.from_pretrained` takes it."""
    if model.bundled is None:
        return model.source
    folder = Path(__file__).parent / "checkpoints" / model.bundled
    if not (folder / "model_index.json").is_file():
        raise InvalidModel(f"model {model.alias}: no checkpoint {model.bundled!r} ships here")
    return str(folder)


def locate_lora(lora: Lora, settings: Settings) -> Path:
    """The file that a job names; raises InvalidSpec where it is none of the installation's own."""
    folder = (settings.loras_dir or settings.home / "loras").resolve()
    file = (folder / lora.path).resolve()
    if not file.is_relative_to(folder) or not file.is_file():
        raise InvalidSpec(f"loras: {lora.path!r} is no file of the workers' folder for LoRAs")
    return file
