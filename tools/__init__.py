"""The doors to the commands, one small script each, and `tools/benchmarks`, what `tools/benchmark.py` measures."""
