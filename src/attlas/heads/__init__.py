"""What each head does on a document, in numbers and small maps, each beside what an even spread would give."""

from attlas.heads.offset import AtOffset
from attlas.heads.statistics import head_statistics
from attlas.heads.table import NEAR, STATISTICS, HeadStatistics, LayerStatistics, Statistic, parquet_of

__all__ = [
    "NEAR",
    "STATISTICS",
    "AtOffset",
    "HeadStatistics",
    "LayerStatistics",
    "Statistic",
    "head_statistics",
    "parquet_of",
]
