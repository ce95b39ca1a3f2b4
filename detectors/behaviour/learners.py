"""What is used of river, and nothing else of it: the models and statistics that learn event by event."""

from __future__ import annotations

from detectors.bare_import import without_init

with without_init("river.anomaly", "river.drift", "river.tree"):
    from river.anomaly.hst import HalfSpaceTrees
    from river.anomaly.loda import LODA
    from river.drift.adwin import ADWIN
    from river.drift.page_hinkley import PageHinkley
    from river.sketch.histogram import Bin, Histogram
    from river.stats import EWMean

__all__ = ["ADWIN", "LODA", "Bin", "EWMean", "HalfSpaceTrees", "Histogram", "PageHinkley"]
