"""A detector or a backbone for other programs: `export_detector` and `export_backbone` write ONNX or torch.export files."""

from detection.export.exporter import check_format, export_backbone, export_detector

__all__ = ["check_format", "export_backbone", "export_detector"]
