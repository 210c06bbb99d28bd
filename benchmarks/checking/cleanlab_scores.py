"""cleanlab's scores of labels, in an environment of its own: `PYTHON cleanlab_scores.py FOLDER`.

FOLDER has NAME.npz with `probabilities_NK` and `labels_N`; NAME.scores.npz gets an array for each of cleanlab's
methods, higher for a label that is more likely wrong, and `flagged`: the rows that its filter takes for errors.
"""

import sys
from pathlib import Path

import numpy as np
from cleanlab.filter import find_label_issues
from cleanlab.rank import get_label_quality_scores

METHODS = {
    "self-confidence": {"method": "self_confidence"},
    "normalized margin": {"method": "normalized_margin"},
    "confidence-weighted entropy": {"method": "confidence_weighted_entropy"},
    "self-confidence, adjusted": {"method": "self_confidence", "adjust_pred_probs": True},
    "normalized margin, adjusted": {"method": "normalized_margin", "adjust_pred_probs": True},
}


def main() -> None:
    for path in sorted(Path(sys.argv[1]).glob("*.npz")):
        if path.name.endswith(".scores.npz"):
            continue
        with np.load(path) as problem:
            labels_N, probabilities_NK = problem["labels_N"], problem["probabilities_NK"]
        found = {
            name: -get_label_quality_scores(labels_N, probabilities_NK, **options)
            for name, options in METHODS.items()
        }
        flagged_N = find_label_issues(labels_N, probabilities_NK, n_jobs=1)
        np.savez(path.with_suffix(".scores.npz"), flagged=flagged_N, **found)


if __name__ == "__main__":
    main()
