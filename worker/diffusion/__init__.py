"""Diffusion pipelines in MindSpore: they know no job, no queue and no bucket."""

from worker.diffusion.denoise import Row
from worker.diffusion.errors import CheckpointError, HubError, PipelineInputError
from worker.diffusion.graphs import keep_graphs
from worker.diffusion.pipelines import Pipeline, reclaim_memory, weight_bytes
from worker.diffusion.saved_row import restore_row, save_row

__all__ = [
    "CheckpointError",
    "HubError",
    "Pipeline",
    "PipelineInputError",
    "Row",
    "keep_graphs",
    "reclaim_memory",
    "restore_row",
    "save_row",
    "weight_bytes",
]
