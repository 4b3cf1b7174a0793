"""What a trained network does, looked at: ablation, layer responses, curves, reports."""
