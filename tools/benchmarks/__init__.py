"""Speed and memory against the usual implementations, on the same work, in one run: what `tools/benchmark.py` measures.

Not part of the installed package: nothing in `backbones` or `detection` imports it.
"""
