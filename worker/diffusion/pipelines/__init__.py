"""Model families, each composed of its models, its tokenizer and any scheduler."""

from worker.diffusion.pipelines.pipeline import Pipeline, reclaim_memory, weight_bytes

__all__ = ["Pipeline", "reclaim_memory", "weight_bytes"]
