"""Measurements, for people: python -m tests.benchmarks."""
