"""The last look at a result: what is no picture of anything must not pass for a success."""

from PIL import Image, ImageChops

from storage.errors import BadOutput

#: Above this strength a result that equals its input has not been made at all.
LEAST_CHANGED = 0.3


def check_output(picture: Image.Image, source: object, strength: float | None) -> None:
    """Raises BadOutput for a picture of one colour, or one that is its input over again."""
    colours = picture.convert("RGB").getcolors(maxcolors=1)
    if colours:
        ((_, colour),) = colours
        raise BadOutput(f"the picture is all of one colour, {colour}")
    if isinstance(source, Image.Image) and strength is not None and strength > LEAST_CHANGED:
        same = source.size == picture.size and source.mode == picture.mode
        if same and ImageChops.difference(source, picture).getbbox() is None:
            raise BadOutput(f"the picture equals its input, at strength {strength}")
