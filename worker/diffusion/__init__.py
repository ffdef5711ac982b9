"""Diffusion pipelines in MindSpore: they know no job, no queue and no bucket."""

from worker.diffusion.denoise import Row
from worker.diffusion.errors import CheckpointError, HubError, PipelineInputError
from worker.diffusion.pipelines import Pipeline, reclaim_memory

__all__ = ["CheckpointError", "HubError", "Pipeline", "PipelineInputError", "Row", "reclaim_memory"]
