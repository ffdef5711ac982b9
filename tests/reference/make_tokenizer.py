# ruff: noqa: RUF001
"""Writes tokenizer.json and tokenizer.npz: prompts, and their ids by the reference's tokenizer.

Needs transformers (reference environment); run as `python tests/reference/make_tokenizer.py`.
"""

import json
import random
import tempfile
from pathlib import Path

import numpy as np
from tiny import write_tokenizer

HERE = Path(__file__).parent

TEXTS = [
    "",
    " ",
    "\n\t  \r\n",
    "a photo of a cat",
    "A Photo OF A CAT",
    "  many   spaces\tand\ttabs\nand\nlines  ",
    "the cat's painting, the dog's house; they're high, i'm low, we've seen, you'll see, he'd go",
    "THE CAT'S, THEY'RE, I'M, WE'VE, YOU'LL, HE'D, DON'T",
    "it’s a typographic apostrophe",
    "rock 'n' roll '' ''' 's 't",
    "12 1234567890 3.14159 1,000,000 50% €12.99 №5 ½ ² Ⅷ ٣٤",
    "café naïve Ångström São Tomé Zürich İstanbul ẞ ß ŒUVRE",
    "cafe\u0301 e\u0301 A\u030a n\u0303 decomposed",
    "日本語のテキスト 富士山の写真",
    "中文提示词：一只猫",
    "한국어 프롬프트",
    "Русский текст, ёлка",
    "ελληνικά ΑΣΟΦΟΣ",
    "עברית العربية हिन्दी ไทย",
    "🐈 🐕‍🦺 👩🏽‍🚀 🇪🇺 ❤️ ☃",
    "a 🐈cat🐈 on a 🏠",
    "\x00 null \x01\x02 control \x1b[31m \x7f",
    "zero\u200bwidth\u200djoiner\ufeffmark\u00adsoft",
    "no\u00a0break\u2003em\u3000ideographic\u2028line\u0085next",
    "<|endoftext|>",
    "<|startoftext|>",
    "a <|endoftext|> b <|startoftext|> c",
    "a<|endoftext|>b",
    "<|ENDOFTEXT|> <|StartOfText|>",
    "<|endoftext |> <|endoftext <||> |>",
    "cat</w> dog</w>",
    "!",
    "!!",
    "wow!",
    "wow !",
    "! wow ! cat!dog !cat",
    "(masterpiece:1.2), [low], {a|b}, <lora:x:0.8>, --no --ar 16:9",
    "http://example.org/a?b=c&d=%20#e user@example.org",
    "snake_case camelCase kebab-case dot.ted C++ C# a/b\\c",
    "a,b,,c;;d::e..f......g---h___i",
    "\"quoted\" 'quoted' «quoted» “quoted” `code`",
    "x" * 40,
    "cat " * 75,
    "cat " * 76,
    "cat " * 74 + "sunset",
    "cat " * 75 + "!",
    "x" * 500,
    "🐈" * 60,
    "painting of the green house and the blue sea, " * 12,
    "the " * 30 + "<|endoftext|> " + "and " * 60,
    "ﬁ ﬂ Å Ω K ǅ",
    "\ud7ff\ue000 private \U0010ffff last",
    "1a2b3c a1b2 12th 3rd 4k 8K",
    "ſtrange ſ K kelvin",
]

PIECES = [
    "cat", "dog", "the", "painting", "sunset", "RED", "Blue", "green", "é", "ü", "ñ", "œ", "ß",
    "猫", "山", "の", "ア", "글", "я", "Ж", "λ", "ش", "🐈", "🚀", "❤️", "12", "7", "0", "½",
    "'s", "'re", "'ll", "'", "!", "?", "...", ",", "-", "_", "(", ")", "[", "]", ":1.3", "#",
    "%", "&", "@", "$",
    " ", "  ", "\t", "\n", "\u00a0", "\u200d", "\x03", "<|endoftext|>", "<|startoftext|>", "</w>",
    "house", "water", "hi", "low", "of", "in", "and", "photo", "oil", "tree", "zebra", "Quartz",
]  # fmt: skip


def random_texts(count: int) -> list[str]:
    """Mixtures of the pieces, with and without spaces, up to far too long."""
    choose = random.Random(0)
    return [
        choose.choice(["", " "]).join(choose.choices(PIECES, k=choose.choice([3, 8, 20, 60, 120])))
        for _ in range(count)
    ]


def write_variant(folder: Path, variant: str) -> None:
    """The tiny tokenizer with its special tokens named as one generation of checkpoints does."""
    write_tokenizer(folder)
    special_map, config = folder / "special_tokens_map.json", folder / "tokenizer_config.json"
    if variant == "padded_with_exclamation":  # Stable Diffusion 2
        special_map.write_text(json.dumps(json.loads(special_map.read_text()) | {"pad_token": "!"}))
    if variant == "listed":  # as transformers writes it since 4.34
        special_map.unlink()
        rules = {"lstrip": False, "rstrip": False, "single_word": False, "special": True}
        start = {"content": "<|startoftext|>", "normalized": True, **rules}
        end = {"content": "<|endoftext|>", "normalized": False, **rules}
        listed = {
            "added_tokens_decoder": {"575": start, "576": end},
            "bos_token": "<|startoftext|>",
            "eos_token": "<|endoftext|>",
            "unk_token": "<|endoftext|>",
            "pad_token": "<|endoftext|>",
        }
        config.write_text(json.dumps(json.loads(config.read_text()) | listed))


VARIANTS = ("padded_with_end", "padded_with_exclamation", "listed")


def main() -> None:
    from transformers import CLIPTokenizer

    texts = TEXTS + random_texts(200)
    ids = {}
    for variant in VARIANTS:
        with tempfile.TemporaryDirectory() as folder:
            write_variant(Path(folder), variant)
            tokenizer = CLIPTokenizer.from_pretrained(folder)
        batch = tokenizer(texts, padding="max_length", max_length=77, truncation=True)
        ids[variant] = np.array(batch["input_ids"], dtype=np.uint16)
    (HERE / "tokenizer.json").write_text(json.dumps(texts, indent=0), "utf-8")
    np.savez_compressed(HERE / "tokenizer.npz", **ids)


if __name__ == "__main__":
    main()
