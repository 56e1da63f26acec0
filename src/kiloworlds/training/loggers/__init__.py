"""Trackers beside the local log: TensorBoard, Weights & Biases, MLflow, trackio."""
