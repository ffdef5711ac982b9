"""The pictures of entries: what stands for their content, and their way into the bucket."""

import hashlib
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from producer.datasets.entry import INPUT_KEY, Entry, Picture
from producer.request import read_picture
from storage.errors import InputUnavailable, InvalidImage, InvalidSpec, LatentmillError
from storage.fetch import shown
from storage.inputs import Input, bucket_and_key, check_input, read_input
from storage.objects import Objects
from storage.settings import Settings
from storage.spec import check_place

#: Files that are read, hashed and uploaded at the same time.
THREADS = 16

#: What is wrong with a picture, and not with the others.
OF_ONE_PICTURE = (InvalidImage, InvalidSpec, InputUnavailable)

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Brought:
    """A picture as a spec names it; its size in pixels where it was looked at."""

    image: str
    size: tuple[int, int] | None = None


class Pictures:
    """Looks at pictures and brings them to the bucket, several at a time."""

    def __init__(self, settings: Settings, objects: Objects | None) -> None:
        """Without objects, pictures of this machine and of the web can be looked at."""
        self._settings, self._objects = settings, objects
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="pictures")

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)

    def each(
        self, what: Callable[[Entry], T], entries: Mapping[int, Entry]
    ) -> dict[int, T | LatentmillError]:
        """What becomes of each: a result, or why there is none.

        A server of ours that is away is no matter of one picture, and is raised.
        """

        def tried(entry: Entry) -> T | LatentmillError:
            try:
                return what(entry)
            except OF_ONE_PICTURE as error:
                return error

        return dict(zip(entries, self._pool.map(tried, entries.values()), strict=True))

    def identity(self, entry: Entry) -> str:
        """What stands for the picture's content: the SHA-256 of its bytes, where it is here.

        Raises InvalidImage or InvalidSpec.
        """
        picture = entry.picture
        assert picture is not None, "an entry without a picture has no identity"
        if isinstance(picture, bytes):
            return hashlib.sha256(picture).hexdigest()
        if isinstance(picture, Path):
            return _hash(picture)
        check_place(picture)
        if picture.startswith("s3://"):
            bucket_and_key(picture, self._settings)
        kept = INPUT_KEY.fullmatch(picture)
        return entry.identity or (kept[1] if kept else picture)

    def bring(self, entry: Entry) -> Brought:
        """Check a picture that is here and store it; one that lies elsewhere is only named."""
        if not is_here(entry.picture):
            return Brought(image=str(entry.picture))
        found = self._read(entry)
        found.store(self._bucket())
        return Brought(image=found.key, size=(found.width, found.height))

    def look(self, entry: Entry) -> Brought:
        """Check a picture wherever it lies, and store nothing."""
        found = self._read(entry)
        return Brought(image=found.key, size=(found.width, found.height))

    def _read(self, entry: Entry) -> Input:
        picture, most = entry.picture, self._settings.max_image_pixels
        assert picture is not None, "there is a picture to read"
        if is_here(picture):
            return read_picture(picture, most)
        data = read_input(str(picture), self._bucket(), self._settings)
        try:
            return check_input(data, most)
        except InvalidImage as error:
            raise InvalidImage(f"{shown(str(picture))}: {error}") from None

    def _bucket(self) -> Objects:
        if self._objects is None:
            self._objects = Objects.open(self._settings)  # says what is not configured
        return self._objects


def is_here(picture: Picture | None) -> bool:
    """Whether this process has it, and the workers have not."""
    return isinstance(picture, Path | bytes)


def _hash(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except FileNotFoundError:
        raise InvalidImage(f"image: there is no file {str(file)!r}") from None
    except IsADirectoryError:
        raise InvalidImage(f"image: {str(file)!r} is a folder, not a picture") from None
    except OSError as error:
        raise InvalidImage(f"image: {str(file)!r} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise InvalidImage(f"image: {str(file)!r} is no path: {error}") from None
