"""The sample data: real handwritten digits on real photographs, for the quickstart. `make_digits(folder)` writes it."""

from detection.data.digits.dataset import DigitsOptions, default_folder, make_digits
from detection.data.digits.drawing import CLASSES

__all__ = ["CLASSES", "DigitsOptions", "default_folder", "make_digits"]
