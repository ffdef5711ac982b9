"""A small byte-pair vocabulary in CLIP's form, learnt from the prompts."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

START, END = "<|startoftext|>", "<|endoftext|>"


def byte_alphabet() -> list[str]:
    """One printable character for each of the 256 bytes, in CLIP's order."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + i) for i in range(len(others))]


def joined(parts: list[str], merge: tuple[str, str]) -> list[str]:
    """A word's parts after one merge."""
    done: list[str] = []
    for part in parts:
        if done and (done[-1], part) == merge:
            done[-1] += part
        else:
            done.append(part)
    return done


def learn_merges(words: Counter[str], known: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """The known merges, then the commonest pair again and again until every word is one token."""
    pieces = {word: [*word[:-1], word[-1] + "</w>"] for word in words}
    for merge in known:
        pieces = {word: joined(parts, merge) for word, parts in pieces.items()}
    merges = list(known)
    while True:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, parts in pieces.items():
            for pair in pairwise(parts):
                pairs[pair] += words[word]
        if not pairs:
            return merges
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        pieces = {word: joined(parts, best) for word, parts in pieces.items()}


def read_merges(folder: Path) -> list[tuple[str, str]]:
    """The merges of a written tokenizer; none where there is no such folder."""
    file = folder / "merges.txt"
    if not file.exists():
        return []
    lines = file.read_text(encoding="utf-8").splitlines()[1:]
    return [(a, b) for a, b in (line.split() for line in lines)]


def write_tokenizer(folder: Path, prompts: Iterable[str]) -> None:
    """Write vocab.json, merges.txt and the two configuration files that CLIPTokenizer reads.

    Merges that the folder already holds stay, with their tokens' numbers; only START and END move,
    and no prompts leave all as it is.
    """
    folder.mkdir(parents=True, exist_ok=True)
    words = Counter(
        word for prompt in prompts for word in re.findall(r"[a-z]+|[0-9]|[^\sa-z0-9]+", prompt)
    )
    merges = learn_merges(words, read_merges(folder))
    alphabet = byte_alphabet()
    tokens = [*alphabet, *(letter + "</w>" for letter in alphabet)]
    tokens += [a + b for a, b in merges] + [START, END]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    if len(vocabulary) != len(tokens):
        raise ValueError("two merges make the same token")
    lines = ["#version: 0.2", *(f"{a} {b}" for a, b in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    special = {"bos_token": START, "eos_token": END, "pad_token": END, "unk_token": END}
    config = {
        **special,
        "add_prefix_space": False,
        "do_lower_case": True,
        "errors": "replace",
        "model_max_length": 77,
        "tokenizer_class": "CLIPTokenizer",
    }
    for name, value in (
        ("vocab.json", vocabulary),
        ("special_tokens_map.json", special),
        ("tokenizer_config.json", config),
    ):
        text = json.dumps(value, indent=None if name == "vocab.json" else 2, ensure_ascii=False)
        (folder / name).write_text(text + "\n", encoding="utf-8")
