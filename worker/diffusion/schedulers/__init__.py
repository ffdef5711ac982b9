"""Noise schedules and their solvers: tables of numbers that know no model."""

from worker.diffusion.schedulers.make import SCHEDULERS, make_scheduler
from worker.diffusion.schedulers.plan import (
    ESTIMATE,
    HISTORY,
    OUTPUT,
    SAMPLE,
    SAVED,
    TERMS,
    Plan,
)
from worker.diffusion.schedulers.scheduler import Scheduler

__all__ = [
    "ESTIMATE",
    "HISTORY",
    "OUTPUT",
    "SAMPLE",
    "SAVED",
    "SCHEDULERS",
    "TERMS",
    "Plan",
    "Scheduler",
    "make_scheduler",
]
