"""From a prompt to what a text encoder makes of it."""

from collections import OrderedDict
from collections.abc import Iterable

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn

from worker.diffusion.calls import Calls
from worker.diffusion.errors import CheckpointError
from worker.diffusion.prompt_weights import parse, weigh
from worker.diffusion.tokenizer import Tokenizer

#: A batch repeats its prompts: this many are kept encoded (0.2 to 0.6 MB each).
KEPT = 256


class PromptEncoder:
    """A tokenizer and its text encoder; remembers what it encoded."""

    def __init__(self, tokenizer: Tokenizer, text_encoder: nn.Cell, name: str) -> None:
        vocabulary = text_encoder.config.vocab_size
        if tokenizer.size > vocabulary:
            raise CheckpointError(
                f"the tokenizer has {tokenizer.size} tokens, but {name} vocab_size is {vocabulary}."
            )
        self.tokenizer = tokenizer
        self.text_encoder = text_encoder
        self.encodings = Calls(lambda tokens: hosts(text_encoder(Tensor(tokens))))
        self._kept: OrderedDict[str, tuple[np.ndarray, ...]] = OrderedDict()

    def __call__(self, text: str, weighted: bool = False) -> tuple[np.ndarray, ...]:
        """The encoder's outputs for one text, float32: an embedding (77, C), and what follows it.

        With `weighted` the text may hold weights, as `prompt_weights.parse` reads them; they are
        the embedding's alone.
        """
        if not weighted:
            return self._encode(text)
        plain, weights = parse(text)
        embedding, *others = self._encode(plain)
        rows = np.ones(len(embedding), np.float32)
        starts = self.tokenizer.starts(plain)
        rows[1 : 1 + len(starts)] = [weights[start] for start in starts]
        return weigh(embedding, rows), *others

    def encode_together(self, texts: Iterable[str]) -> None:
        """Encodes, in common calls, what will be asked for."""
        new = [text for text in dict.fromkeys(texts) if text not in self._kept]
        tokens = [(np.array(self.tokenizer(text), dtype=np.int32),) for text in new]
        for text, outputs in zip(new, self.encodings(tokens), strict=True):
            self._kept[text] = outputs
        while len(self._kept) > max(KEPT, len(new)):
            self._kept.popitem(last=False)

    def _encode(self, text: str) -> tuple[np.ndarray, ...]:
        self.encode_together([text])
        self._kept.move_to_end(text)
        return self._kept[text]

    def cut_off(self, text: str, weighted: bool = False) -> str:
        """The end of a text that is too long to be used."""
        return self.tokenizer.cut_off(parse(text)[0] if weighted else text)


def hosts(outputs: Tensor | tuple[Tensor, ...]) -> tuple[np.ndarray, ...]:
    """The values of a model's outputs, one or several, as float32."""
    return tuple(map(host, outputs if isinstance(outputs, tuple) else (outputs,)))


def host(tensor: Tensor) -> np.ndarray:
    """A tensor's values as float32."""
    return tensor.astype(ms.float32).asnumpy()
