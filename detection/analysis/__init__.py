"""Trained networks examined: ablation, layer responses, training curves, reports of an evaluation."""
