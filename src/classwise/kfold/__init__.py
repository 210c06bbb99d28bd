"""`classwise folds`: a model for each fold, predictions of all rows by models that have not seen them, an ensemble.

The package is not called `folds`, since that is the name of the function `classwise.folds`.
"""
