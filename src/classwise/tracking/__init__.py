"""A run in the tools where people watch their runs: TensorBoard, MLflow, Weights & Biases, a table.

The training process (trackers.py) sends numbers through a pipe (channel.py) to one other process (worker.py), in which
each tracker has a thread of its own (lane.py). So no import, network call, warning or crash of theirs reaches the run.
"""
