"""CLIP's tokenizer: a prompt becomes 77 ids."""

from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Backend
from tokenizers.models import BPE
from tokenizers.normalizers import NFC, Lowercase, Replace
from tokenizers.pre_tokenizers import ByteLevel, Split

from worker.diffusion.errors import CheckpointError
from worker.diffusion.layout import read_json

LENGTH = 77

# Special tokens, English contractions, runs of letters, single digits, runs of anything else.
WORDS = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"

# In the order in which the reference adds them; the default where a file names none.
ROLES = (
    ("bos_token", "<|startoftext|>"),
    ("eos_token", "<|endoftext|>"),
    ("unk_token", "<|endoftext|>"),
    ("pad_token", "<|endoftext|>"),
)


class Tokenizer:
    """CLIP's byte-level BPE (Radford et al. 2021), from `vocab.json` and `merges.txt`."""

    def __init__(self, backend: Backend, start: int, end: int, pad: int) -> None:
        self._backend = backend
        self._start, self._end, self._pad = start, end, pad

    @classmethod
    def from_pretrained(cls, folder: Path, padding: str | None = None) -> "Tokenizer":
        """The tokenizer of a checkpoint's `tokenizer` folder.

        `padding` is the token that fills a text up, where the folder's is not the one meant. Raises
        CheckpointError where a file is missing or damaged.
        """
        files = [Path(folder) / name for name in ("vocab.json", "merges.txt")]
        for file in files:
            if not file.is_file():
                raise CheckpointError(f"{file} is missing; the tokenizer is read from it.")
        roles, special = read_special_tokens(Path(folder), padding)
        try:
            bpe = BPE.from_file(
                *map(str, files),
                unk_token=roles["unk_token"],
                end_of_word_suffix="</w>",
                continuing_subword_prefix="",
            )
        except Exception as error:  # the library has no class of its own
            raise CheckpointError(f"{files[0]} or {files[1].name} is damaged: {error}") from error
        backend = Backend(bpe)
        cleaning = [NFC(), Replace(Regex(r"\s+"), " "), Lowercase()]
        backend.normalizer = normalizers.Sequence(cleaning)
        splitting = [Split(Regex(WORDS), "removed", invert=True), ByteLevel(add_prefix_space=False)]
        backend.pre_tokenizer = pre_tokenizers.Sequence(splitting)
        backend.add_special_tokens(special)
        ids = []
        for role in ("bos_token", "eos_token", "pad_token"):
            token_id = backend.token_to_id(roles[role])
            if token_id is None:
                raise CheckpointError(f"{folder}: {role} is {roles[role]!r}, which is no token.")
            ids.append(token_id)
        return cls(backend, *ids)

    @property
    def size(self) -> int:
        """All ids are below this."""
        return int(self._backend.get_vocab_size(with_added_tokens=True))

    def __call__(self, text: str) -> list[int]:
        """Exactly 77 ids: start, at most 75 of the text, end, padding."""
        ids = self._backend.encode(text, add_special_tokens=False).ids[: LENGTH - 2]
        return [self._start, *ids, self._end] + [self._pad] * (LENGTH - 2 - len(ids))

    def starts(self, text: str) -> list[int]:
        """Where in the text each of the ids of its own begins."""
        offsets = self._backend.encode(text, add_special_tokens=False).offsets[: LENGTH - 2]
        return [start for start, _ in offsets]

    def cut_off(self, text: str) -> str:
        """The end of a text that does not fit into 77 ids; empty where all of it does."""
        offsets = self._backend.encode(text, add_special_tokens=False).offsets[LENGTH - 2 :]
        return text[offsets[0][0] :] if offsets else ""


def read_special_tokens(
    folder: Path, padding: str | None
) -> tuple[dict[str, str], list[AddedToken]]:
    """Which token has which role, and all tokens that are matched before any splitting.

    Newer checkpoints list the tokens in `tokenizer_config.json`. In older ones
    `special_tokens_map.json` has the last word: Stable Diffusion 2 names its padding only there.
    """
    config = read_optional(folder / "tokenizer_config.json")
    listed = config.get("added_tokens_decoder", {})
    later = {} if listed else read_optional(folder / "special_tokens_map.json")
    published = {role: later.get(role) or config.get(role) or default for role, default in ROLES}
    published["pad_token"] = padding or published["pad_token"]
    roles = {
        role: value if isinstance(value, str) else value["content"]
        for role, value in published.items()
    }
    # Of two rules for one token the last one holds.
    return roles, [added_token(value) for value in (*published.values(), *listed.values())]


def added_token(value: str | dict[str, Any]) -> AddedToken:
    """A token as the files write it: its text, or its text with rules for matching it."""
    if isinstance(value, str):
        return AddedToken(value, special=True)
    rules = ("lstrip", "rstrip", "single_word", "normalized", "special")
    return AddedToken(
        value["content"], **{"special": True, **{k: value[k] for k in rules if k in value}}
    )


def read_optional(path: Path) -> dict[str, Any]:
    """The object in a file; empty where there is no such file."""
    return read_json(path) if path.is_file() else {}
