"""Let a trained pipeline read the words of names that were added to data.py since.

The weights stay as they are. The vocabulary keeps its tokens' numbers and grows behind them; only
the start and end tokens move. A new token's embedding begins as the mean of the tokens that its
text was made of until now.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from data import prompts
from diffusers import StableDiffusionPipeline
from tokenizer import END, START, write_tokenizer
from transformers import CLIPTokenizer


def embeddings_of(
    weights: torch.Tensor, before: CLIPTokenizer, after: CLIPTokenizer
) -> torch.Tensor:
    """Embeddings (tokens after, width) for a grown vocabulary."""
    known = before.get_vocab()
    rows = []
    for token, _ in sorted(after.get_vocab().items(), key=lambda pair: pair[1]):
        if token in known:
            rows.append(weights[known[token]])
        else:
            # A token within a word ends in no "</w>"; its text read as a word is close enough.
            pieces = before(token.removesuffix("</w>"), add_special_tokens=False).input_ids
            rows.append(weights[pieces].mean(dim=0))
    return torch.stack(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="the pipeline's folder; changed in place")
    folder = parser.parse_args().folder
    pipe = StableDiffusionPipeline.from_pretrained(folder, dtype=torch.float32)
    write_tokenizer(folder / "tokenizer", prompts())
    (folder / "tokenizer" / "tokenizer.json").unlink(missing_ok=True)
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    text_encoder = pipe.text_encoder
    weights = text_encoder.get_input_embeddings().weight.detach().clone()
    text_encoder.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    with torch.no_grad():
        grown = embeddings_of(weights, pipe.tokenizer, tokenizer)
        text_encoder.get_input_embeddings().weight.copy_(grown)
    numbers = tokenizer.get_vocab()
    text_encoder.config.bos_token_id = numbers[START]
    text_encoder.config.eos_token_id = text_encoder.config.pad_token_id = numbers[END]
    text_encoder.save_pretrained(folder / "text_encoder")
    print(f"{len(weights)} tokens before, {len(tokenizer)} now")


if __name__ == "__main__":
    main()
