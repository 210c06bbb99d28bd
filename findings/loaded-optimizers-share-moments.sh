#!/usr/bin/env bash
# Two torch optimizers that were given the same state dict go on with the same moments: a step of one changes the other.
#
# One would guess that load_state_dict copies, as that of a module does, so that one can try two learning rates from the
# same point: load the model's and the optimizer's state into two pairs, train both, compare.
# What happens: the module's weights are copied, but the optimizer keeps the very tensors of the state dict, which are those
# of the optimizer that it came from (wherever dtype and device are the same). All of them update one set of moments and, in
# Adam, one step counter in place. The second branch is trained with the first one's gradients in its moments, and going
# back to the state dict does not help, since it has changed as well. Only a deep copy of the state dict is a snapshot.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check torch==2.15.0 numpy

cd "$folder"
"$folder/env/bin/python" -W ignore - <<'PY'
import copy

import torch

print("torch", torch.__version__)


def pair():
    model = torch.nn.Linear(1, 1, bias=False)
    return model, torch.optim.Adam(model.parameters(), lr=0.1)


def step(model, optimizer, gradient):
    model.weight.grad = torch.full((1, 1), gradient)
    optimizer.step()


def branches(snapshot):
    """The weight of a branch with gradients of -1, alone and beside another branch with gradients of +1."""
    model, optimizer = pair()
    torch.nn.init.ones_(model.weight)
    step(model, optimizer, 1.0)
    weights, moments = model.state_dict(), snapshot(optimizer.state_dict())
    ends = []
    for beside in (False, True):
        kept = copy.deepcopy(moments)
        first, second = pair(), pair()
        for branch in (first, second):
            branch[0].load_state_dict(weights)
            branch[1].load_state_dict(kept if snapshot is dict else copy.deepcopy(kept))
        for _ in range(5):
            if beside:
                step(*second, 1.0)
            step(*first, -1.0)
        ends.append((first[0].weight.item(), int(first[1].state[first[0].weight]["step"])))
    return ends


for name, snapshot in (("state dict", dict), ("deep copies of it", copy.deepcopy)):
    alone, beside = branches(snapshot)
    print(f"{name}: alone weight {alone[0]:.4f} after step {alone[1]}; beside another {beside[0]:.4f}, step {beside[1]}")
    if snapshot is dict:
        assert abs(alone[0] - beside[0]) > 0.05 and (alone[1], beside[1]) == (6, 11)
    else:
        assert alone == beside and alone[1] == 6
PY
