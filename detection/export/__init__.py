"""A detector or a backbone for other programs: ONNX files and programs of torch.export."""
