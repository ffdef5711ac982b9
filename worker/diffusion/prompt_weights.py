"""Weights in a prompt, in the notation that most tools share: `(word:1.3)`, `(word)`, `[word]`."""

import re

import numpy as np

from worker.diffusion.errors import PipelineInputError

#: What a bare bracket multiplies by, and what a square one divides by.
EMPHASIS = 1.1
LARGEST = 10.0

#: A bracket escaped, a weight that ends a bracket, a bracket, or any other character.
PIECE = re.compile(r"\\[()\[\]\\]|:\s*([^\s:()\[\]]+)\s*\)|[()\[\]]|.", re.DOTALL)


def parse(prompt: str) -> tuple[str, list[float]]:
    """The prompt without its notation, and a weight for each of its characters.

    `(text:1.3)` weighs 1.3, `(text)` 1.1, `[text]` 1 / 1.1; brackets within brackets multiply, and
    a backslash makes a bracket text. Raises PipelineInputError that names the place.
    """
    characters: list[str] = []
    weights: list[float] = []
    # Where each open bracket stands in the prompt, and how much plain text was there before it.
    open_: list[tuple[str, int, int]] = []
    for piece in PIECE.finditer(prompt):
        text, place = piece[0], piece.start()
        if text in "([":
            open_.append((text, place, len(weights)))
        elif text in ")]" or piece[1] is not None:
            wanted = "[" if text == "]" else "("
            if not open_ or open_[-1][0] != wanted:
                raise PipelineInputError(
                    f"prompt has a {text[-1]!r} at character {place + len(text)} that closes no "
                    f"{wanted!r}; write \\{text[-1]} where it is text."
                )
            first = open_.pop()[2]
            factor = EMPHASIS if text == ")" else 1 / EMPHASIS
            if piece[1] is not None:
                factor = number(piece[1], place)
            weights[first:] = [weight * factor for weight in weights[first:]]
        else:
            plain = text[1:] if text[0] == "\\" and len(text) == 2 else text
            characters += plain
            weights += [1.0] * len(plain)
    if open_:
        bracket, place, _ = open_[0]
        raise PipelineInputError(
            f"prompt has a {bracket!r} at character {place + 1} that is never closed; "
            f"write \\{bracket} where it is text."
        )
    return "".join(characters), weights


def number(text: str, place: int) -> float:
    """A weight as it is written. Raises PipelineInputError for what is none."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= LARGEST:
        raise PipelineInputError(
            f"prompt has the weight {text!r} at character {place + 2}; "
            f"it must be a number from 0 to {LARGEST:g}."
        )
    return value


def weigh(embedding: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """An embedding (s, C) with its rows multiplied by weights (s,), scaled to the mean it had.

    That keeps the whole as loud as the model knows it, as AUTOMATIC1111's web UI does.
    """
    if (weights == 1.0).all():
        return embedding
    weighed = embedding * weights[:, None]
    mean = weighed.mean()
    return weighed * (embedding.mean() / mean) if mean else weighed
