"""Writes published.json: names and shapes of the weights that published configurations lead to.

`published/` holds the configurations. The reference's own models are built from them, without any
memory for weights; of each model's sorted lines `name shape` the digest is kept.

Run in the reference environment of `requirements.txt`: python tests/reference/make_published.py
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
#: Numbers that files hold and that are no weights.
NO_WEIGHTS = "position_ids"


def summary(shapes: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    """What is kept of a model's weights: how many, of how many numbers, and the digest."""
    lines = [f"{name} {list(shape)}" for name, shape in sorted(shapes.items())]
    numbers = 0
    for shape in shapes.values():
        count = 1
        for side in shape:
            count *= side
        numbers += count
    return {
        "weights": len(lines),
        "numbers": numbers,
        "sha256": hashlib.sha256("\n".join(lines).encode()).hexdigest(),
    }


def configurations() -> Iterable[tuple[str, dict[str, Any]]]:
    """Each published configuration under `checkpoint/component`."""
    for file in sorted((HERE / "published").glob("*.json")):
        for component, config in json.loads(file.read_text()).items():
            yield f"{file.stem}/{component}", config


def reference_shapes(config: dict[str, Any]) -> dict[str, list[int]]:
    import diffusers
    import torch
    import transformers

    with torch.device("meta"):
        if "_class_name" in config:
            model = getattr(diffusers, config["_class_name"]).from_config(config)
        else:
            (name,) = config["architectures"]
            kind = getattr(transformers, name)
            model = kind(kind.config_class(**config))
    shapes = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    shapes = {name: shape for name, shape in shapes.items() if not name.endswith(NO_WEIGHTS)}
    # Published files have this prefix, which transformers 5 leaves out where nothing is projected.
    if config.get("architectures") == ["CLIPTextModel"]:
        shapes = {f"text_model.{n.removeprefix('text_model.')}": s for n, s in shapes.items()}
    return shapes


def main() -> None:
    found = {name: summary(reference_shapes(config)) for name, config in configurations()}
    (HERE / "published.json").write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    for name, each in found.items():
        print(f"{name}: {each['weights']} weights, {each['numbers'] / 1e6:.1f} million numbers")


if __name__ == "__main__":
    main()
