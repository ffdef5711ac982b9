"""Fetching a checkpoint from the Hugging Face hub into its client's own cache."""

from pathlib import Path

from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from worker.diffusion.errors import CheckpointError, HubError
from worker.diffusion.layout import file_names, needed_files, read_json


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
    except LocalEntryNotFoundError as error:
        return _from_cache(repo, revision, variant, error)
    except EntryNotFoundError as error:
        raise CheckpointError(
            f"{repo} has no model_index.json: it is not in diffusers' layout."
        ) from error
    except (HTTPError, OSError) as error:
        return _from_cache(repo, revision, variant, error)


def _from_hub(repo: str, revision: str | None, variant: str | None) -> Path:
    index = read_json(Path(hf_hub_download(repo, "model_index.json", revision=revision)))
    names = HfApi().list_repo_files(repo, revision=revision)
    wanted = needed_files(names, index, variant)
    return Path(snapshot_download(repo, revision=revision, allow_patterns=wanted))


def _from_cache(repo: str, revision: str | None, variant: str | None, cause: Exception) -> Path:
    try:
        path = Path(snapshot_download(repo, revision=revision, local_files_only=True))
        needed_files(file_names(path), read_json(path / "model_index.json"), variant)
    except (LocalEntryNotFoundError, CheckpointError) as error:
        raise HubError(
            f"The hub did not answer ({cause}), and {repo} is not wholly cached: {error}"
        ) from error
    return path
