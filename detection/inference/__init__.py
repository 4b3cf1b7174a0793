"""From a trained detector to detections: one image or a data set, views of it, ensembles, drawings, metrics."""
