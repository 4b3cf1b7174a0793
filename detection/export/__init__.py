"""A detector or a backbone for other programs: `export_detector`, `export_int8` and `export_backbone` write ONNX or
torch.export files; `load_exported` runs a detector's by onnxruntime or OpenVINO."""

from detection.export.exported import ExportedDetector, load_exported
from detection.export.exporter import check_format, export_backbone, export_detector
from detection.export.quantisation import export_int8, quantise_detector

__all__ = [
    "ExportedDetector",
    "check_format",
    "export_backbone",
    "export_detector",
    "export_int8",
    "load_exported",
    "quantise_detector",
]
