"""`classwise schedule`: the learning rate over a run, before it is trained."""
