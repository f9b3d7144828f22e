"""Sums over training features from which a head can be edited without the training data."""

from __future__ import annotations

from expunge.statistics.collect import collect_statistics, collect_sums
from expunge.statistics.features import FeatureStatistics
from expunge.statistics.sums import Sums

__all__ = ["FeatureStatistics", "Sums", "collect_statistics", "collect_sums"]
