"""Bulk datasets: entries come from a source, and a recipe makes jobs of them."""

from producer.datasets.entry import BadEntry, Entry
from producer.datasets.recipe import Recipe, make_recipe, read_recipe
from producer.datasets.source import read_source
from producer.datasets.submit import submit_dataset

__all__ = [  # noqa: RUF022 - grouped
    # What there is
    "Entry",
    "BadEntry",
    "read_source",
    # What becomes of it
    "Recipe",
    "make_recipe",
    "read_recipe",
    "submit_dataset",
]
