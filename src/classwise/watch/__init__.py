"""Watching a run from another process: what its directory says, in a terminal that is kept up to date, or as lines.

Only files are read, and neither torch nor scikit-learn is imported.
"""
