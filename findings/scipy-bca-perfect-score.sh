#!/usr/bin/env bash
# scipy.stats.bootstrap with its default method (BCa) gives NaN for a model without a mistake.
#
# One would guess an interval from 1 to 1 (the percentile method's answer) or one with a lower end below 1. What happens: the
# acceleration of BCa divides 0 by 0 where every resample has the same score, and both ends are NaN, with a warning only. A
# table of scores with intervals then has its hole exactly at the best model or the easiest class.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check scipy==1.17.1 numpy

cd "$folder"
"$folder/env/bin/python" -W ignore - <<'PY'
import numpy as np
import scipy
from scipy.stats import bootstrap

print("scipy", scipy.__version__)
hits = np.ones(30)
for method in ("BCa", "percentile"):
    interval = bootstrap((hits,), np.mean, method=method, rng=0).confidence_interval
    print(f"{method}: {interval.low} to {interval.high}")
    if method == "BCa":
        assert np.isnan(interval.low) and np.isnan(interval.high)
    else:
        assert interval.low == interval.high == 1
# One mistake is enough for an interval.
hits[0] = 0
interval = bootstrap((hits,), np.mean, method="BCa", rng=0).confidence_interval
print(f"BCa with one mistake: {interval.low:.3f} to {interval.high:.3f}")
assert 0.7 < interval.low < 1
PY
