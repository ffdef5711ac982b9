"""Model families, each composed of its models, its tokenizer and any scheduler."""

from worker.diffusion.pipelines.pipeline import Pipeline, reclaim_memory

__all__ = ["Pipeline", "reclaim_memory"]
