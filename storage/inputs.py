"""Input pictures: where a spec's `image` says they are, and where they are kept."""

import hashlib
from dataclasses import dataclass
from typing import BinaryIO

from storage.addresses import Exceptions
from storage.errors import InvalidImage, InvalidSpec, NotFound
from storage.fetch import fetch
from storage.objects import Objects, input_key
from storage.picture import EXTENSIONS, check_picture, most_bytes
from storage.settings import Settings

#: No picture that comes from the web is larger, in bytes.
MOST_FROM_WEB = 100 * 2**20


@dataclass(frozen=True, kw_only=True)
class Input:
    """A checked picture; width and height as it is seen, in pixels."""

    key: str
    data: bytes
    content_type: str
    width: int
    height: int

    def store(self, objects: Objects) -> None:
        """Keep it under its key; repeating is harmless."""
        objects.put_once(self.key, self.data, self.content_type)


def check_input(data: bytes, max_pixels: int) -> Input:
    """Check a picture and say where it belongs; raises InvalidImage."""
    info = check_picture(data, max_pixels)
    return Input(
        key=input_key(data, EXTENSIONS[info.format]),
        data=data,
        content_type=f"image/{info.format.lower()}",
        width=info.width,
        height=info.height,
    )


@dataclass(frozen=True, kw_only=True)
class Kept:
    """A picture that is in the bucket; width and height as it is seen, in pixels."""

    key: str
    width: int
    height: int


def keep_file(file: BinaryIO, objects: Objects, max_pixels: int) -> Kept:
    """Check a picture in an open file and keep it, never all of it in memory.

    Raises InvalidImage.
    """
    info = check_picture(file, max_pixels)
    file.seek(0)
    digest = hashlib.sha256()
    while chunk := file.read(2**20):
        digest.update(chunk)
    key = f"inputs/{digest.hexdigest()}.{EXTENSIONS[info.format]}"
    file.seek(0)
    objects.put_once(key, file, f"image/{info.format.lower()}")
    return Kept(key=key, width=info.width, height=info.height)


def is_url(image: str) -> bool:
    """Whether an `image` lies outside of the bucket's own layout."""
    return "://" in image


def read_input(image: str, objects: Objects, settings: Settings) -> bytes:
    """The bytes of what an `image` names: a key of the bucket, `s3://bucket/key` or `https://…`.

    Raises InvalidImage or InvalidSpec for what will not do, Unavailable for what may pass.
    """
    most = most_bytes(settings.max_image_pixels)
    if image.startswith("s3://"):
        return _from_bucket(image, objects, settings, most)
    if is_url(image):
        exceptions = Exceptions.parse(settings.allow_private_urls)
        return fetch(image, exceptions, min(most, MOST_FROM_WEB))
    try:
        return objects.get(image)
    except NotFound:
        raise InvalidImage(f"image: {image!r} is not in the bucket") from None


def bucket_and_key(url: str, settings: Settings) -> tuple[str, str]:
    """What an `s3://bucket/key` names; raises InvalidSpec for a bucket that is not read from."""
    bucket, _, key = url.removeprefix("s3://").partition("/")
    allowed = [name for name in (settings.s3_bucket, *settings.input_buckets) if name]
    if bucket not in allowed:
        raise InvalidSpec(
            f"image: {url!r}: pictures are read from {', '.join(allowed)} only;"
            " LATENTMILL_INPUT_BUCKETS can name more"
        )
    return bucket, key


def _from_bucket(url: str, objects: Objects, settings: Settings, most: int) -> bytes:
    bucket, key = bucket_and_key(url, settings)
    try:
        data = objects.read(bucket, key, most) if key else None
    except NotFound:
        data = None
    if data is None:
        raise InvalidImage(f"image: there is no object {url!r}")
    if len(data) > most:
        raise InvalidImage(f"image: {url!r} has more than {most:,} bytes")
    return data
