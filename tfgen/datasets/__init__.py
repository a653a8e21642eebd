"""Data sets: recipes, building, importing and exporting, and the file that holds them."""

from __future__ import annotations

from tfgen.datasets.storage import SPLITS, Dataset

__all__ = ["SPLITS", "Dataset"]
