"""Benchmarks: each prints figures and leaves a record; none is a test."""
