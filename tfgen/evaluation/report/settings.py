"""What may be varied in a report."""

from __future__ import annotations

from dataclasses import dataclass

from tfgen._settings import check_whole

__all__ = ["ReportSettings"]


@dataclass(frozen=True, kw_only=True)
class ReportSettings:
    """Settings of `tfgen.evaluation.report.write.write_report`.

    Attributes:
        pictures: the number of structures drawn in the gallery; they are evenly spaced through the
            file if there are more.
        map_structures: the number of training structures, and of generated ones, shown in a map;
            likewise.

    Raises:
        ValueError: if a number is not a whole number in its range.
    """

    pictures: int = 12
    map_structures: int = 1000

    def __post_init__(self) -> None:
        check_whole(self, 1, "pictures")
        check_whole(self, 3, "map_structures")
