"""Checkpoints of detectors: reading, writing, starting another detector from one, converting those of other projects."""
