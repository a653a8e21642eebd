"""Data sets: recipes, random starts, building, importing, and the file they end in."""

from __future__ import annotations

from tfgen.datasets.storage import SPLITS, Dataset

__all__ = ["SPLITS", "Dataset"]
