"""Model families, each composed of its models, its tokenizer and any scheduler."""

from worker.diffusion.pipelines.pipeline import Pipeline

__all__ = ["Pipeline"]
