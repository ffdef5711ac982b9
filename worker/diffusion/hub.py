"""Fetching a checkpoint from the Hugging Face hub into its client's own cache."""

from pathlib import Path

from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import (  # type: ignore[attr-defined]  # HTTPError
    GatedRepoError,
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from worker.diffusion.errors import CheckpointError, HubError
from worker.diffusion.layout import INDEX, file_names, needed_files, read_json

#: Seconds to wait for the hub's first answer before the cache is used.
PATIENCE = 10

#: CLIP's own repository, whose vocabulary all text encoders of Stable Diffusion share.
VOCABULARY = "openai/clip-vit-large-patch14"
VOCABULARY_FILES = ["vocab.json", "merges.txt"]


def download(repo: str, revision: str | None, variant: str | None) -> Path:
    """The folder of a repository's snapshot with the files that are needed, and no others.

    The hub is asked first; when it does not answer, what is cached serves. Raises CheckpointError
    for a repository or file that is not there, HubError when neither hub nor cache has it.
    """
    try:
        return _from_hub(repo, revision, variant)
    except GatedRepoError as error:
        raise CheckpointError(
            f"{repo} is gated: accept its terms on the hub and log in with `hf auth login`."
        ) from error
    except RevisionNotFoundError as error:
        raise CheckpointError(f"{repo} has no revision {revision!r}.") from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise CheckpointError(
            f"{repo!r} is neither a folder here nor a repository on the hub that you may read."
        ) from error
    except (HTTPError, OSError) as error:
        return _from_cache(repo, revision, variant, error)


def _from_hub(repo: str, revision: str | None, variant: str | None) -> Path:
    # Asked first, since this request alone is not repeated for half a minute without a network.
    info = HfApi().model_info(repo, revision=revision, timeout=PATIENCE)
    names = {sibling.rfilename for sibling in info.siblings or ()}
    if INDEX not in names:
        raise CheckpointError(f"{repo} has no {INDEX}: it is not in diffusers' layout.")
    index = read_json(Path(hf_hub_download(repo, INDEX, revision=revision)))
    wanted = needed_files(names, index, variant)
    return Path(snapshot_download(repo, revision=revision, allow_patterns=wanted))


def _from_cache(repo: str, revision: str | None, variant: str | None, cause: Exception) -> Path:
    try:
        index = Path(hf_hub_download(repo, INDEX, revision=revision, local_files_only=True))
        needed_files(file_names(index.parent), read_json(index), variant)
    except LocalEntryNotFoundError as error:
        raise HubError(
            f"The hub did not answer ({cause}), and {repo} is not in the cache."
        ) from error
    except CheckpointError as error:
        raise HubError(
            f"The hub did not answer ({cause}), and the cache has not all of {repo}: {error}"
        ) from error
    return index.parent


def download_vocabulary() -> Path:
    """The folder of CLIP's vocabulary; from the cache if it is there, since it never changes."""
    try:
        try:
            found = [
                hf_hub_download(VOCABULARY, n, local_files_only=True) for n in VOCABULARY_FILES
            ]
            return Path(found[0]).parent
        except LocalEntryNotFoundError:
            HfApi().model_info(VOCABULARY, timeout=PATIENCE)
            return Path(snapshot_download(VOCABULARY, allow_patterns=VOCABULARY_FILES))
    except (HTTPError, OSError) as error:
        raise HubError(
            f"The hub did not answer ({error}), and CLIP's vocabulary is not in the cache; put "
            f"{' and '.join(VOCABULARY_FILES)} of {VOCABULARY} into a folder named tokenizer "
            "beside the checkpoint's file."
        ) from error
