"""fireworks: data pipelines for PyTorch, from tables, databases and files to batches, models and results."""

__version__ = "0.4.0"
