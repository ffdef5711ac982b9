"""The models that jobs may name: aliases for checkpoints."""

import difflib
import re
import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from storage.errors import NotConfigured, UnknownModel
from storage.settings import Settings

MODELS_FILE = "models.toml"
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


#: How `source` names a checkpoint that ships with the worker.
BUNDLED = "bundled:"


class Model(BaseModel):
    """Where a model's checkpoint comes from and how it is loaded."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    alias: Annotated[str, Field(min_length=1, max_length=400)]
    #: A local folder, a Hugging Face repository id, or `bundled:<name>`.
    source: Annotated[str, Field(min_length=1)]
    revision: str | None = None
    variant: str | None = None
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    #: Workers of this pool serve it.
    pool: Annotated[str, Field(min_length=1, max_length=100)] = "default"

    @property
    def bundled(self) -> str | None:
        """The name of the checkpoint that ships with the worker, if this is one."""
        return self.source.removeprefix(BUNDLED) if self.source.startswith(BUNDLED) else None


def load_models(settings: Settings) -> dict[str, Model]:
    """The package's models, then the installation's, by alias; raises NotConfigured."""
    package = files("storage").joinpath(MODELS_FILE).read_text("utf-8")
    models = _parse(package, "the package's models.toml")
    own = settings.models_file or settings.home / MODELS_FILE
    if settings.models_file or own.exists():
        try:
            text = own.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise NotConfigured(f"models_file: {own} cannot be read: {error}") from None
        models |= _parse(text, str(own))
    return models


def find_model(models: dict[str, Model], name: str, settings: Settings) -> Model:
    """The model that a job names; raises UnknownModel."""
    if name in models:
        return models[name]
    if settings.allow_any_model and name and (Path(name).is_dir() or _REPOSITORY.fullmatch(name)):
        return Model(alias=name, source=name)
    close = difflib.get_close_matches(name, models, n=3)
    hint = f"; did you mean {' or '.join(close)}?" if close else ""
    raise UnknownModel(f"model: {name!r} is not known (known: {', '.join(sorted(models))}){hint}")


def _parse(text: str, place: str) -> dict[str, Model]:
    try:
        tables: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise NotConfigured(f"{place}: {error}") from None
    models = {}
    for alias, table in tables.items():
        if not isinstance(table, dict):
            raise NotConfigured(f"{place}: {alias}: a model is a table: [{alias}]")
        try:
            models[alias] = Model(**{**table, "alias": alias})
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            field = ".".join(str(part) for part in first["loc"])
            raise NotConfigured(f"{place}: {alias}.{field}: {first['msg']}") from None
    return models
