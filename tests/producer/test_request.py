"""Requests: what is wrong with one is said when it is made, by the name of its field."""

import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from producer import Img2Img, Text2Img
from producer.request import Picture, read_picture
from storage.errors import InvalidImage, InvalidSpec
from storage.picture import load_picture

LIMIT = 1_000_000
KNOWN: dict[str, Any] = {"model": "demo", "prompt": "a cat"}


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"strength": 1.5}, "strength: Input should be less than or equal to 1 (got '1.5')"),
        ({"strength": -0.1}, "strength: Input should be greater than or equal to 0"),
        ({"strength": float("nan")}, "strength: Input should be a finite number"),
        ({"strength": 0.01, "num_inference_steps": 50}, "must be at least 0.02"),
        ({"image": "ftp://a/b.png"}, "image: a URL must be of the form s3://bucket/key or https:"),
        ({"image": "https://"}, "image: a URL must be of the form"),
        ({"num_inference_steps": 0}, "num_inference_steps: Input should be greater than or"),
        ({"width": 100}, "width: Input should be a multiple of 8 (got '100')"),
        ({"scheduler": "Eular"}, "scheduler: 'Eular' is not one of DDIMScheduler"),
        ({"scheduler": {"beta": 1}}, "scheduler: None is not one of DDIMScheduler"),
        ({"seed": -1}, "seed: Input should be greater than or equal to 0"),
        ({"seed": "7"}, "seed: Input should be a valid integer"),
        ({"strenght": 0.5}, "strenght: no such field"),
        ({"image": 7}, "image: a path, bytes, an open file, a PIL image, a URL or a key"),
    ],
)
def test_a_wrong_value_is_refused_when_the_request_is_made(
    values: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(InvalidSpec) as caught:
        Img2Img(**{"image": "cat.png", **KNOWN, **values})
    assert sentence in str(caught.value)


def test_a_request_needs_a_model_and_a_prompt() -> None:
    with pytest.raises(InvalidSpec, match="model: Field required; prompt: Field required"):
        Text2Img()  # type: ignore[call-arg]


def test_a_key_of_the_bucket_stays_a_key_and_any_other_text_is_a_path() -> None:
    key = f"inputs/{'a' * 64}.png"
    assert Img2Img(image=key, **KNOWN).picture is None
    assert Img2Img(image="inputs/cat.png", **KNOWN).picture == "inputs/cat.png"


def test_the_same_picture_has_one_key_however_it_is_given(picture: Path) -> None:
    data = picture.read_bytes()
    ways: list[Picture] = [picture, str(picture), data, io.BytesIO(data)]
    with picture.open("rb") as file:
        assert len({read_picture(way, LIMIT).key for way in [*ways, file]}) == 1


def test_an_open_file_must_give_bytes(picture: Path) -> None:
    with picture.open(encoding="latin-1") as text, pytest.raises(InvalidImage, match="'rb'"):
        read_picture(text, LIMIT)  # type: ignore[arg-type]
    closed = io.BytesIO(b"x")
    closed.close()
    with pytest.raises(InvalidImage, match="image: the open file cannot be read"):
        read_picture(closed, LIMIT)


def test_a_url_stays_the_spec_s_until_the_client_reads_it() -> None:
    request = Img2Img(image="https://pictures.example/cat.png", **KNOWN)
    assert request.picture is None
    assert getattr(request.step, "image", None) == "https://pictures.example/cat.png"


def test_a_photograph_that_lies_on_its_side_arrives_upright_however_it_is_given(
    tmp_path: Path,
) -> None:
    lying = Image.new("RGB", (40, 20), "black")
    lying.paste((200, 30, 40), (0, 0, 10, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn 90 degrees clockwise to see it upright
    file = tmp_path / "photo.jpg"
    lying.save(file, exif=exif, quality=95)
    with Image.open(file) as opened:
        ways: list[Picture] = [file, file.read_bytes(), opened]
        for way in ways:
            found = read_picture(way, LIMIT)
            arrived = load_picture(found.data, LIMIT)
            assert (found.width, found.height) == arrived.size == (20, 40)
            assert arrived.getpixel((10, 3))[0] > 150  # type: ignore[index]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV"])
def test_a_pil_image_of_any_mode_arrives_as_it_looks(mode: str) -> None:
    orange = Image.new("RGB", (8, 8), (255, 128, 0)).convert(mode)
    found = read_picture(orange, LIMIT)
    arrived = load_picture(found.data, LIMIT).getpixel((4, 4))
    expected = orange.convert("RGB").getpixel((4, 4))
    assert found.content_type == "image/png"
    assert arrived == expected


@pytest.mark.parametrize("mode", ["I", "F", "LAB"])
def test_a_pil_image_that_cannot_be_shown_without_guessing_is_refused(mode: str) -> None:
    with pytest.raises(InvalidImage, match=rf"image: .*mode {mode}"):
        read_picture(Image.new(mode, (8, 8)), LIMIT)


def test_a_pil_image_of_16_bits_keeps_its_shades() -> None:
    found = read_picture(Image.new("I;16", (8, 8), 0x8000), LIMIT)
    assert load_picture(found.data, LIMIT).getpixel((0, 0)) == (128, 128, 128)


def test_a_pil_image_whose_file_is_cut_short_is_refused(picture: Path) -> None:
    lazy = Image.open(io.BytesIO(picture.read_bytes()[:-40]))
    with pytest.raises(InvalidImage, match="image: "):
        read_picture(lazy, LIMIT)


def test_a_pil_image_without_pixels_is_refused() -> None:
    with pytest.raises(InvalidImage, match="image: "):
        read_picture(Image.new("RGB", (0, 5)), LIMIT)


def test_a_file_far_larger_than_any_allowed_picture_is_not_read(tmp_path: Path) -> None:
    sparse = tmp_path / "huge.png"
    with sparse.open("wb") as file:
        file.truncate(10**12)
    with pytest.raises(InvalidImage, match=r"huge\.png.* bytes"):
        read_picture(sparse, LIMIT)


def test_what_is_wrong_with_a_file_names_it(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("not a picture")
    (tmp_path / "none.png").write_bytes(b"")
    Image.new("L", (2000, 2000)).save(tmp_path / "large.png")
    frames = [Image.new("L", (8, 8), shade) for shade in (0, 200)]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    for name, sentence in {
        "text.png": "it is none of PNG, JPEG",
        "none.png": "it is empty",
        "large.png": "2000x2000 is 4000000 pixels, at most 1000000 are allowed",
        "moving.gif": "it has 2 frames",
        "missing.png": "there is no file",
        ".": "is a folder",
        "a\0b": "is no path",
    }.items():
        with pytest.raises(InvalidImage) as caught:
            read_picture(tmp_path / name, LIMIT)
        assert sentence in str(caught.value)
        assert repr(str(tmp_path / name))[1:-1] in str(caught.value)
