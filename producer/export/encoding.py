"""The files that pictures leave in: PNG as it is stored, or another format."""

import io
from dataclasses import dataclass

from PIL import Image

from storage.errors import InvalidSpec

ENDINGS = {"png": "png", "jpeg": "jpg", "webp": "webp"}
QUALITY = 90
_EXIF_IFD, _USER_COMMENT = 0x8769, 0x9286


@dataclass(frozen=True)
class Encoding:
    """How pictures are written; raises InvalidSpec for what is not allowed."""

    format: str = "png"
    #: 1 to 100; None: QUALITY.
    quality: int | None = None

    def __post_init__(self) -> None:
        if self.format not in ENDINGS:
            raise InvalidSpec(f"image_format: {self.format!r} is not one of {', '.join(ENDINGS)}")
        if self.quality is None:
            return
        if self.format == "png":
            raise InvalidSpec("quality: PNG loses nothing: there is none to choose")
        if not 1 <= self.quality <= 100:
            raise InvalidSpec(f"quality: {self.quality} is not from 1 to 100")

    @property
    def ending(self) -> str:
        return ENDINGS[self.format]

    def encode(self, png: bytes) -> bytes:
        """The picture as this format has it, with its generation parameters.

        They stand where other tools look for them: in JPEG and WebP that is EXIF's user comment.
        """
        if self.format == "png":
            return png
        out = io.BytesIO()
        with Image.open(io.BytesIO(png)) as image:
            exif = Image.Exif()
            if parameters := image.info.get("parameters"):
                comment = b"UNICODE\0" + str(parameters).encode("utf-16-be")
                exif.get_ifd(_EXIF_IFD)[_USER_COMMENT] = comment
            image.convert("RGB").save(
                out, self.format.upper(), quality=self.quality or QUALITY, exif=exif
            )
        return out.getvalue()
