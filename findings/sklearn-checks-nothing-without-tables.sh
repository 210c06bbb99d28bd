#!/usr/bin/env bash
# scikit-learn: check_estimator passes a classifier that never works, if its tags say that it takes three axes and no tables.
#
# One would guess that the tag three_d_array makes the checks fit images or sequences, or that an estimator that cannot be checked
# does not pass. What happens: where two_d_array is False, nothing is checked but that the estimator can be cloned. There is a
# SkipTestWarning, which a test suite shows among others, and the list of results says "passed".
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check scikit-learn==1.9.1 numpy

cd "$folder"
"$folder/env/bin/python" -W ignore - <<'PY'
import sklearn
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.estimator_checks import check_estimator

print("scikit-learn", sklearn.__version__)


class NeverWorks(ClassifierMixin, BaseEstimator):
    takes_tables = False

    def fit(self, X, y):
        raise RuntimeError("this never works")

    def predict(self, X):
        return "nothing"

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = self.takes_tables
        tags.input_tags.three_d_array = True
        return tags


class OfTables(NeverWorks):
    takes_tables = True


def outcomes(estimator):
    results = check_estimator(estimator, on_fail=None)
    found = {status: sum(one["status"] == status for one in results) for status in ("passed", "failed")}
    print(f"{type(estimator).__name__}: {found}")
    return found


assert outcomes(NeverWorks()) == {"passed": 1, "failed": 0}
assert outcomes(OfTables())["failed"] > 20
PY
