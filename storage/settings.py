"""Settings: read once, from the environment or from a running embedded stack, then passed down."""

import json
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from storage.addresses import Exceptions
from storage.embedded.lock import is_locked
from storage.errors import NotConfigured
from storage.secret import secret_bytes

PREFIX = "LATENTMILL_"
#: What the embedded stack writes into its home so that other processes of the same user find it.
STACK_FILE = "stack.json"
#: Pillow refuses pictures with more pixels, as decompression bombs.
PILLOW_LIMIT = 178_956_970


def _items(value: Any) -> Any:
    """The items of a list in one variable, between commas or spaces."""
    return tuple(value.replace(",", " ").split()) if isinstance(value, str) else value


def _places(value: tuple[str, ...]) -> tuple[str, ...]:
    Exceptions.parse(value)
    return value


def _signs(value: SecretStr) -> SecretStr:
    secret_bytes(value.get_secret_value())
    return value


Items = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_items)]


def _default_home() -> Path:
    return Path.home() / ".latentmill"


def _default_graphs() -> Path:
    return Path.home() / ".cache" / "latentmill" / "graphs"


class Settings(BaseSettings):
    """Where everything is, and how a worker behaves. Frozen; secrets never show in its repr."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore")

    home: Path = Field(default_factory=_default_home)

    database_url: SecretStr | None = None
    redis_url: SecretStr | None = None
    s3_endpoint_url: str | None = None
    s3_bucket: str | None = None
    s3_region: str = "us-east-1"
    #: Without these two, boto3 looks in its usual places (instance roles, ~/.aws).
    s3_access_key: SecretStr | None = None
    s3_secret_key: SecretStr | None = None

    #: A models.toml that adds to the one in the package.
    models_file: Path | None = None
    #: Without it, a job cannot make a worker load a model that its owner did not register.
    allow_any_model: bool = False
    #: Where the LoRA files are that jobs may name; else `home`/loras.
    loras_dir: Path | None = None
    #: A picture with more pixels is refused before it is decoded.
    max_image_pixels: Annotated[int, Field(gt=0, le=PILLOW_LIMIT)] = 64_000_000
    #: Hosts, addresses and networks that an input's URL may name although they are not public.
    allow_private_urls: Annotated[Items, AfterValidator(_places)] = ()
    #: Buckets beside our own that an input's s3:// URL may name.
    input_buckets: Items = ()

    #: Where workers keep compiled graphs.
    graphs_dir: Path = Field(default_factory=_default_graphs)
    #: Bytes of weights that a device keeps loaded; default: a third of its memory.
    model_memory: Annotated[int, Field(gt=0)] | None = None
    #: Signs the webhooks of jobs that came in without an API key: `whsec_…`.
    webhook_secret: Annotated[SecretStr, AfterValidator(_signs)] | None = None

    lease_seconds: Annotated[float, Field(gt=0)] = 30.0
    renew_seconds: Annotated[float, Field(gt=0)] = 5.0
    poll_seconds: Annotated[float, Field(gt=0)] = 2.0


def load_settings(**overrides: Any) -> Settings:
    """Merge, strongest first: overrides, the environment, the embedded stack that runs in `home`.

    Raises NotConfigured when a value is not what its field allows; the message names the variable.
    """
    try:
        settings = Settings(**overrides)
        found = _running_stack(settings.home)
        missing = {k: v for k, v in found.items() if k not in settings.model_fields_set}
        return Settings(**{**missing, **overrides}) if missing else settings
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        name = PREFIX + str(first["loc"][0]).upper()
        raise NotConfigured(f"{name}: {first['msg']}") from None


def require(settings: Settings, field: str) -> str:
    """The value of a setting that this process cannot do without, secrets revealed."""
    value = getattr(settings, field)
    if value is None:
        raise NotConfigured(
            f"{PREFIX}{field.upper()} is not set and no embedded stack runs in {settings.home}:"
            " start one with `latentmill up`, or set it"
        )
    return value.get_secret_value() if isinstance(value, SecretStr) else str(value)


def _running_stack(home: Path) -> dict[str, Any]:
    if not is_locked(home):  # whatever a stack that was killed left behind
        return {}
    try:
        found: dict[str, Any] = json.loads((home / STACK_FILE).read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise NotConfigured(f"{home / STACK_FILE} cannot be read: {error}") from None
    return found
