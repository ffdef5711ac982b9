"""Objects in S3: inputs, results and carries, written whole or not at all."""

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, NamedTuple

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError
from ulid import ULID

from storage.errors import InvalidSpec, NotConfigured, NotFound, ObjectsUnavailable
from storage.settings import Settings, require

#: The bucket's layout; nothing outside it is read or written.
_LAYOUT = re.compile(r"(inputs|jobs|carry|batches)(/[A-Za-z0-9_-][A-Za-z0-9._-]*)+")
MAX_KEY_LENGTH = 1024
_REFUSED = {
    "AccessDenied",
    "ExpiredToken",
    "Forbidden",
    "InvalidAccessKeyId",
    "InvalidToken",
    "SignatureDoesNotMatch",
    "403",
}


def input_key(data: bytes, extension: str) -> str:
    """Where an input lies: the same bytes always in the same place."""
    return f"inputs/{hashlib.sha256(data).hexdigest()}.{extension.lower().lstrip('.')}"


def result_key(job_id: str, step: int, steps_total: int) -> str:
    name = "result.png" if step == steps_total - 1 else f"step-{step}.png"
    return f"jobs/{job_id}/{name}"


def carry_key(job_id: str, step: int, extension: str = "safetensors") -> str:
    """Where a step's carry lies: `safetensors` for a latent, `png` for an image."""
    return f"carry/{job_id}/{step}.{extension}"


class Listed(NamedTuple):
    """An object as a listing shows it. Equal ETags and sizes mean equal bytes."""

    key: str
    size: int
    etag: str


class Objects:
    """One bucket; safe to use from several threads.

    Every method raises ObjectsUnavailable after a few quick retries, and NotConfigured when the
    bucket is not there or refuses these credentials.
    """

    def __init__(self, client: Any, bucket: str) -> None:
        self._client, self._bucket = client, bucket

    @classmethod
    def open(cls, settings: Settings) -> "Objects":
        """The bucket that the settings name; connects when first used."""
        key, secret = settings.s3_access_key, settings.s3_secret_key
        endpoint = require(settings, "s3_endpoint_url")
        if not endpoint.startswith(("http://", "https://")):
            raise NotConfigured(
                f"s3_endpoint_url: {endpoint!r} must begin with http:// or https://"
            )
        client = boto3.session.Session().client(
            "s3",
            endpoint_url=endpoint,
            region_name=settings.s3_region,
            aws_access_key_id=key.get_secret_value() if key else None,
            aws_secret_access_key=secret.get_secret_value() if secret else None,
            config=Config(
                signature_version="s3v4",
                s3={"addressing_style": "path"},
                connect_timeout=3,
                read_timeout=10,
                retries={"mode": "standard", "total_max_attempts": 3},
                max_pool_connections=32,
                tcp_keepalive=True,
                # Not every S3-compatible store knows the newer checksum trailers.
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            ),
        )
        return cls(client, require(settings, "s3_bucket"))

    def put(self, key: str, data: bytes, content_type: str) -> None:
        """Write an object, replacing what was there."""
        with self._explained(key):
            self._client.put_object(
                Bucket=self._bucket, Key=_known(key), Body=data, ContentType=content_type
            )

    def put_once(self, key: str, data: bytes | BinaryIO, content_type: str) -> bool:
        """Write an object unless there is one; says whether it was written."""
        try:
            with self._explained(key):
                self._client.put_object(
                    Bucket=self._bucket,
                    Key=_known(key),
                    Body=data,
                    ContentType=content_type,
                    IfNoneMatch="*",
                )
        except _AlreadyThere:
            return False
        return True

    def get(self, key: str) -> bytes:
        """An object's bytes; raises NotFound."""
        with self._explained(key):
            found = self._client.get_object(Bucket=self._bucket, Key=_known(key))
            data: bytes = found["Body"].read()
            return data

    def read(self, bucket: str, key: str, most: int) -> bytes:
        """Any object of any bucket that these credentials open; raises NotFound.

        Of one that has more than `most` bytes, `most` + 1.
        """
        other = Objects(self._client, bucket)
        with other._explained(key):
            found = self._client.get_object(Bucket=bucket, Key=key)
            data: bytes = found["Body"].read(most + 1)
            found["Body"].close()
            return data

    def listed(
        self, prefix: str, *, after: str = "", bucket: str | None = None
    ) -> Iterator[Listed]:
        """The objects whose keys begin so and come after `after`, in order of their keys."""
        other = Objects(self._client, bucket or self._bucket)
        wanted = {"Bucket": other._bucket, "Prefix": prefix}
        if after:
            wanted["StartAfter"] = after
        while True:
            with other._explained(prefix):
                page = self._client.list_objects_v2(**wanted)
            for item in page.get("Contents", ()):
                yield Listed(item["Key"], item["Size"], item["ETag"].strip('"'))
            if not page.get("IsTruncated"):
                return
            wanted["ContinuationToken"] = page["NextContinuationToken"]

    def download(self, bucket: str, key: str, file: BinaryIO) -> None:
        """Write any object's bytes to a file; raises NotFound."""
        other = Objects(self._client, bucket)
        with other._explained(key):
            self._client.download_fileobj(bucket, key, file)

    def size(self, key: str) -> int:
        """An object's length in bytes; raises NotFound."""
        with self._explained(key):
            found = self._client.head_object(Bucket=self._bucket, Key=_known(key))
            return int(found["ContentLength"])

    def exists(self, key: str) -> bool:
        try:
            self.size(key)
        except NotFound:
            return False
        return True

    def delete(self, key: str) -> None:
        """Remove an object; harmless when there is none."""
        with self._explained(key):
            self._client.delete_object(Bucket=self._bucket, Key=_known(key))

    def delete_under(self, folder: str) -> None:
        """Remove the objects whose keys begin with `folder` and a slash."""
        prefix = f"{_known(folder)}/"
        with self._explained(prefix):
            pages = self._client.get_paginator("list_objects_v2")
            found = [
                item["Key"]
                for page in pages.paginate(Bucket=self._bucket, Prefix=prefix)
                for item in page.get("Contents", ())
            ]
        for key in found:
            self.delete(key)

    def url(self, key: str, seconds: int = 3600) -> str:
        """A link that gives the object to whoever has it, for so long."""
        with self._explained(key):
            link: str = self._client.generate_presigned_url(
                "get_object",
                Params={"Bucket": self._bucket, "Key": _known(key)},
                ExpiresIn=seconds,
            )
            return link

    def check(self) -> None:
        """Write, read and remove a small object; raises what stands in the way."""
        key, data = f"inputs/check-{str(ULID()).lower()}", b"latentmill"
        self.put(key, data, "text/plain")
        if self.get(key) != data:
            raise ObjectsUnavailable(f"{self}: an object came back other than it was written")
        self.delete(key)

    def ensure_bucket(self) -> None:
        """Create the bucket unless it is there."""
        try:
            with self._explained(""):
                self._client.head_bucket(Bucket=self._bucket)
        except NotFound:
            with self._explained(""):
                self._client.create_bucket(Bucket=self._bucket)

    def __str__(self) -> str:
        return f"bucket {self._bucket!r} at {self._client.meta.endpoint_url}"

    @contextmanager
    def _explained(self, key: str) -> Iterator[None]:
        """Errors of ours, in one sentence, instead of botocore's."""
        try:
            yield
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            if code == "NoSuchBucket":
                raise NotConfigured(f"{self} does not exist") from None
            if code in ("NoSuchKey", "404", "NotFound"):
                raise NotFound(f"{self} has no object {key!r}") from None
            if code in ("PreconditionFailed", "ConditionalRequestConflict", "412"):
                raise _AlreadyThere(key) from None
            if code in _REFUSED or status == 403:
                raise NotConfigured(f"{self} refuses these credentials ({code})") from None
            raise ObjectsUnavailable(f"{self} cannot be used: {code or status}") from None
        except NoCredentialsError:
            raise NotConfigured(
                f"{self}: no credentials: set LATENTMILL_S3_ACCESS_KEY and LATENTMILL_S3_SECRET_KEY"
            ) from None
        except (BotoCoreError, OSError) as error:
            raise ObjectsUnavailable(f"{self} cannot be used: {error}") from None


class _AlreadyThere(Exception):
    """The object of a put_once exists."""


def _known(key: str) -> str:
    if len(key) > MAX_KEY_LENGTH or not _LAYOUT.fullmatch(key):
        raise InvalidSpec(
            f"object key {key[:200]!r}: must be inputs/…, jobs/…, carry/… or batches/…, each part"
            " of letters, digits, '.', '_' and '-', beginning with no '.'"
        )
    return key
