"""Detectors: pure judges; an event goes in, a verdict and its reasons come out."""
