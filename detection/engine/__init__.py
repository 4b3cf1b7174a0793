"""The training loop, for classifiers and detectors alike: `detection.engine.train.train`."""
