"""A small script for each command of `resdet`, and `tools/benchmarks`, which `tools/benchmark.py` runs."""
