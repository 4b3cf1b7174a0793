"""ImageNet localisation (CLS-LOC), the paper's appendix C: where the objects of the classes lie that a classifier names.

Images of one class each (`images`) become batches of crops for the per-class RPN and of warped regions for the R-CNN
(`batches`, `warping`).
`train_localiser(config)` goes through all of it.
"""

from detection.localisation.train import LocTrainResult, train_localiser

__all__ = ["LocTrainResult", "train_localiser"]
