"""Files of weights: read, verified, downloaded, converted; imports nothing of `detection`."""
