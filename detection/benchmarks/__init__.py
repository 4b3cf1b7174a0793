"""Speed and memory against the usual implementations, on the same work, in one run: what `tools/benchmark.py` measures."""
