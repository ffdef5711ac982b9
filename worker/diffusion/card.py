"""A checkpoint's card: the front matter of its README.md, which the hub reads too."""

from pathlib import Path

from huggingface_hub import ModelCard

from worker.diffusion.errors import CheckpointError
from worker.diffusion.layout import CARD


def named_in_card(folder: Path, entry: str) -> list[str]:
    """The texts, one or several, of an entry of the front matter; none where it is not there.

    Raises CheckpointError for front matter that is no YAML.
    """
    path = folder / CARD
    if not path.is_file():
        return []
    try:
        card = ModelCard(path.read_text("utf-8"), ignore_metadata_errors=True)
    except Exception as error:  # the parser's own, or one of its reader's
        raise CheckpointError(f"the front matter of {path} is no YAML: {error}.") from error
    value = card.data.get(entry)
    texts = value if isinstance(value, list) else [value]
    return [text for text in texts if isinstance(text, str) and text]
