"""`classwise step`: one update of a run under the lens. The loop that is watched is the one that trains."""
