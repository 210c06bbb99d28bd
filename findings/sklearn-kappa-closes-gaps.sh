#!/usr/bin/env bash
# scikit-learn's quadratic kappa does not know how far apart two grades are: a grade that nobody has in the split brings its
# neighbours together, and names of grades count in the order of the alphabet.
#
# Quadratic kappa is the score of graded images, such as retinopathy from 0 to 4. One would guess that confusing 0 with 4 costs
# (4 - 0)^2, since the labels are numbers. What happens: the distance is one of places among the labels that occur. Without a
# row of grades 2 and 3, confusing 0 with 4 costs what confusing 0 with 2 would. The same mistakes score differently with the
# grades that happen to be in a fold, and two more rows that both models grade right turn around which of them is better.
# Grades named low, mid and high count as high < low < mid. Nothing is said; `labels`, all of them and in order, fixes both.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check scikit-learn==1.9.1 numpy

cd "$folder"
"$folder/env/bin/python" - <<'PY'
import numpy as np
import sklearn
from sklearn.metrics import cohen_kappa_score

print("scikit-learn", sklearn.__version__)


def kappa(truth, answers, labels=None):
    return cohen_kappa_score(truth, answers, weights="quadratic", labels=labels)


# Grades 0, 1 and 4. One model confuses 0 with 4 in two of 90 rows, the other 0 with 1 in nine of 90.
truth = np.repeat([0, 1, 4], 30)
far, near = truth.copy(), truth.copy()
far[:2] = 4
near[:9] = 1
grades = [0, 1, 2, 3, 4]
by_default = [kappa(truth, answers) for answers in (far, near)]
with_grades = [kappa(truth, answers, grades) for answers in (far, near)]
print("two of 0 taken for 4, nine of 0 taken for 1")
print("grades that occur:", np.round(by_default, 4))
print("all five grades:  ", np.round(with_grades, 4))
# One right row of each of the other two grades.
wider = [kappa(np.append(truth, [2, 3]), np.append(answers, [2, 3])) for answers in (far, near)]
print("with two more rows, graded right:", np.round(wider, 4))

# The formula with distances of the numbers themselves.
for answers, score in zip((far, near), with_grades):
    chance = np.mean((truth[:, None] - answers[None, :]) ** 2)
    assert abs(1 - np.mean((truth - answers) ** 2) / chance - score) < 1e-9
assert kappa(truth, far) == kappa(np.where(truth == 4, 2, truth), np.where(far == 4, 2, far))
print("far is better by default:", by_default[0] > by_default[1], "; by the numbers:", with_grades[0] > with_grades[1])

names = np.array(["low", "mid", "high"])
rows, answers = np.array([0, 1, 2, 1]), np.array([0, 2, 2, 1])
print("0, 1, 2:", round(kappa(rows, answers), 4), "; low, mid, high:", round(kappa(names[rows], names[answers]), 4))
assert abs(kappa(rows, answers) - 0.8) < 1e-9
assert abs(kappa(names[rows], names[answers]) - 5 / 13) < 1e-9
assert abs(kappa(names[rows], names[answers], list(names)) - 0.8) < 1e-9
PY
