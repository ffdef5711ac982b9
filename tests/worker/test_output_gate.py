"""What is no picture of anything is a failure."""

import pytest
from PIL import Image

from storage.errors import BadOutput
from worker.output_gate import check_output

GRADIENT = Image.linear_gradient("L").convert("RGB")


def test_a_picture_of_one_colour_is_refused() -> None:
    with pytest.raises(BadOutput, match=r"all of one colour, \(255, 0, 0\)"):
        check_output(Image.new("RGB", (8, 8), "red"), None, None)
    with pytest.raises(BadOutput, match=r"\(0, 0, 0\)"):
        check_output(Image.new("RGB", (8, 8)), None, None)
    almost = Image.new("RGB", (8, 8), "red")
    almost.putpixel((3, 3), (254, 0, 0))
    check_output(almost, None, None)


def test_a_picture_that_is_its_input_over_again_is_refused_where_it_should_have_changed() -> None:
    with pytest.raises(BadOutput, match=r"equals its input, at strength 0\.5"):
        check_output(GRADIENT, GRADIENT.copy(), 0.5)
    check_output(GRADIENT, GRADIENT.copy(), 0.3)
    check_output(GRADIENT, GRADIENT.rotate(180), 1.0)
    check_output(GRADIENT, GRADIENT.resize((64, 64)), 1.0)
    check_output(GRADIENT, None, None)
