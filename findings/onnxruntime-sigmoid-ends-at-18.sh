#!/usr/bin/env bash
# ONNX Runtime's Sigmoid on a CPU is exactly 0 from about -18 down, and torch's exporters build log-sigmoid on it.
#
# One would guess that a float32 sigmoid of -20 is 2e-9 everywhere, as torch and NumPy have it (float32 goes down to 1e-38), and
# that an exported F.logsigmoid stays the stable function that it is in torch, -20 for -20: that is what it is there for.
# What happens: ONNX Runtime's Sigmoid clamps its argument, so its output is 0 and 1 from -18 and 18 on, within its absolute
# error of 1e-7, but with no digit right relative to the value: at -17 the logarithm is off by .8. Both of torch's exporters write
# log-sigmoid as Log(Sigmoid(x)), so a file of a multilabel or ordinal model gives -inf where the model said -20, and a mean,
# a product of conditional probabilities or a log loss over such outputs is infinite or NaN. binary_cross_entropy_with_logits
# exports to the same. Softplus is exported as an operator of its own and is right to the last digit: -Softplus(-x) is the
# same function.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check \
  torch==2.15.0 numpy onnx==1.20.0 onnxscript==0.6.0 onnxruntime==1.32.0

cd "$folder"
"$folder/env/bin/python" -W ignore - 2>/dev/null <<'PY'
import io

import numpy as np
import onnxruntime
import torch
import torch.nn.functional as F
from torch import nn

print("torch", torch.__version__, "onnxruntime", onnxruntime.__version__)


class Module(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def exported(function, x, dynamo):
    """What ONNX Runtime computes of a function, as exported by torch."""
    if dynamo:
        file = torch.onnx.export(Module(function), (x,), dynamo=True, verbose=False).model_proto.SerializeToString()
    else:
        buffer = io.BytesIO()
        torch.onnx.export(Module(function), (x,), buffer, dynamo=False)
        file = buffer.getvalue()
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]


x = torch.tensor([[-5.0, -10.0, -17.0, -20.0, -50.0]])
print("x                         ", x.tolist()[0])
print("torch.sigmoid             ", [f"{v:.2g}" for v in torch.sigmoid(x)[0].tolist()])
for dynamo in (False, True):
    sigmoid = exported(torch.sigmoid, x, dynamo)[0]
    log_sigmoid = exported(F.logsigmoid, x, dynamo)[0]
    stable = exported(lambda x: -F.softplus(-x), x, dynamo)[0]
    print(f"dynamo={dynamo}: Sigmoid     ", [f"{v:.2g}" for v in sigmoid.tolist()])
    print(f"dynamo={dynamo}: logsigmoid  ", [f"{v:.4g}" for v in log_sigmoid.tolist()])
    print(f"dynamo={dynamo}: -softplus(-x)", [f"{v:.4g}" for v in stable.tolist()])
    assert sigmoid[3] == 0 and sigmoid[4] == 0 and abs(sigmoid[0] - 0.0066929) < 1e-6
    assert np.isneginf(log_sigmoid[3:]).all() and abs(log_sigmoid[2] + 17) > 0.5
    assert np.allclose(stable, F.logsigmoid(x)[0].numpy(), rtol=1e-6)
assert torch.allclose(F.logsigmoid(x)[0, 2:], x[0, 2:])
PY
