"""The average of the weights: equal to torch's and timm's, exact resume, and batch norms that fit their weights."""

import copy
import math

import pytest
import torch
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn

from classwise.model.average import NoAverage, WeightAverage
from classwise.model.small_cnn import SmallCNN


def model_with_everything() -> nn.Module:
    """A model with convolutions, norms with counters, and a head, in channels_last."""
    torch.manual_seed(0)
    model = nn.Sequential(SmallCNN(width=4, grid=1), nn.Linear(16, 3))
    return model.to(memory_format=torch.channels_last)


def learn(model: nn.Module, steps: int, seed: int = 1):
    """Steps of SGD on random images; yields after each."""
    draw = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.05, momentum=0.9)
    model.train()
    for _ in range(steps):
        images_BCHW, labels_B = (
            torch.randn(6, 3, 8, 8, generator=draw),
            torch.randint(3, (6,), generator=draw),
        )
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images_BCHW), labels_B).backward()
        optimizer.step()
        yield


def same(one: nn.Module, other: nn.Module) -> bool:
    """Whether two models hold the same bits under the same names."""
    pairs = zip(one.state_dict().items(), other.state_dict().items(), strict=True)
    return all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)


@pytest.mark.parametrize("decay", [0.0, 0.4, 0.9, 0.999])
def test_a_hundred_updates_equal_torch_and_timm(decay: float):
    """With a constant decay, every bit is that of torch's AveragedModel and of timm's ModelEmaV3."""
    model = model_with_everything()
    ours = WeightAverage(model, decay, warmup=False)
    timms = ModelEmaV3(model, decay=decay)
    torchs = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
    torchs.update_parameters(model)  # its first update copies
    for _ in learn(model, 100):
        ours.update(model)
        timms.update(model)
        torchs.update_parameters(model)
    assert same(ours.model, timms.module)
    for (name, one), other in zip(
        ours.model.state_dict().items(), torchs.module.state_dict().values(), strict=True
    ):
        if one.is_floating_point():  # torch averages the counters as well, and rounds
            assert torch.equal(one, other), name
    assert same(ours.model, model) == (decay == 0.0)


def test_the_rule_with_warmup_in_plain_numbers():
    """average <- d average + (1 - d) weights with d = min(decay, (1 + n) / (10 + n)), computed for a scalar."""
    model = nn.Linear(1, 1, bias=False).double()
    average = WeightAverage(model, 0.5)
    expected, decays = model.weight.item(), []
    for n in range(1, 40):
        nn.init.constant_(model.weight, math.sin(n))
        average.update(model)
        decays.append(min(0.5, (1 + n) / (10 + n)))
        expected = decays[-1] * expected + (1 - decays[-1]) * math.sin(n)
        assert average.model.weight.item() == pytest.approx(expected, abs=1e-14)
    assert decays[0] == 2 / 11
    assert decays[-1] == 0.5


@pytest.mark.parametrize("cut", [1, 7, 30])
def test_a_resume_is_bit_exact(cut: int):
    """A run continued from the state and the model after any update ends in the same bits, also during the decay's
    warmup; the state contains the number of updates."""
    model = model_with_everything()
    average, taken = WeightAverage(model, 0.9), {}
    history: list[nn.Module] = []
    for n, _ in enumerate(learn(model, 40), 1):
        average.update(model)
        history.append(copy.deepcopy(model))
        if n == cut:
            taken = copy.deepcopy(average.state_dict())
    resumed = WeightAverage(history[cut - 1], 0.9)
    resumed.load_state_dict(taken)
    assert resumed.updates == cut
    for later in history[cut:]:
        resumed.update(later)
    assert same(resumed.model, average.model)
    forgetful = WeightAverage(history[cut - 1], 0.9)
    forgetful.load_state_dict(taken | {"updates": 0})
    for later in history[cut:]:
        forgetful.update(later)
    assert not same(forgetful.model, average.model)


def test_the_copy_is_for_evaluation_only():
    """Eval mode, no gradients, the layout of the original, memory of its own; the original does not change."""
    model = model_with_everything().train()
    average = WeightAverage(model, 0.9)
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not any(module.training for module in average.model.modules())
    assert not any(parameter.requires_grad for parameter in average.model.parameters())
    before = copy.deepcopy(model)
    for _ in learn(model, 1):
        expected = copy.deepcopy(model)
        average.update(model)
        assert same(model, expected)
    for ours, theirs in zip(average.model.parameters(), model.parameters(), strict=True):
        assert ours.stride() == theirs.stride()
        assert ours.data_ptr() != theirs.data_ptr()
    assert not same(model, before)
    assert not same(average.model, before)


def test_frozen_weights_do_not_change():
    """The average of a frozen weight is bit for bit the weight; after it is unfrozen, the average follows."""
    model = model_with_everything()
    body = model[0]
    body.stem.conv.weight.requires_grad_(False)
    start = body.stem.conv.weight.clone()
    average = WeightAverage(model, 0.97)
    for _ in learn(model, 50):
        average.update(model)
    assert torch.equal(average.model[0].stem.conv.weight, start)
    body.stem.conv.weight.requires_grad_(True)
    for _ in learn(model, 5, seed=2):
        average.update(model)
    assert not torch.equal(average.model[0].stem.conv.weight, start)


class Masked(nn.Module):
    """Buffers of every kind: infinities, integers, booleans, and one that is not in the state dict."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3))
        self.register_buffer("mask", torch.tensor([0.0, -math.inf, math.inf]))
        self.register_buffer("count", torch.tensor([3, 4]))
        self.register_buffer("switch", torch.tensor([True, False]))
        self.register_buffer("mean", torch.tensor([0.1, 0.7]), persistent=False)


def test_buffers_that_have_no_mean_are_copied():
    """Masks with infinities, counts and booleans are copied; constant buffers do not change."""
    model = Masked()
    average = WeightAverage(model, 0.9)
    for n in range(5):
        model.count += n
        model.switch.logical_not_()
        average.update(model)
    for name, buffer in model.named_buffers():
        assert torch.equal(average.model.get_buffer(name), buffer), name


def drifting() -> tuple[nn.Module, list[Tensor]]:
    """A layer, a batch norm and a head, and batches whose mean the layer's weights follow as they drift."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3))
    return model, [torch.randn(64, 8) + 3 for _ in range(300)]


def test_averaged_statistics_fit_averaged_weights():
    """While what enters a batch norm drifts, averaged statistics are near those that torch's update_bn computes
    for the averaged weights from the data, and so are the outputs; copied ones are several times as far off."""
    model, batches = drifting()
    average = WeightAverage(model, 0.99, warmup=False)
    direction_FG = torch.randn(6, 8)
    for inputs_BF in batches:
        with torch.no_grad():
            model[0].weight += 0.02 * direction_FG
            model(inputs_BF)  # moves the running statistics
        average.update(model)
    exact, copied = copy.deepcopy(average.model), copy.deepcopy(average.model)
    update_bn(batches, exact)
    exact.eval()
    for ours, theirs in zip(copied.buffers(), model.buffers(), strict=True):
        ours.copy_(theirs)
    inputs_BF = torch.cat(batches)
    with torch.no_grad():
        wanted_BK = exact(inputs_BF)
        off = {
            name: float((one(inputs_BF) - wanted_BK).square().mean().sqrt() / wanted_BK.std(0).mean())
            for name, one in (("averaged", average.model), ("copied", copied))
        }
    mean_off = [
        float((one[1].running_mean - exact[1].running_mean).norm()) for one in (average.model, copied)
    ]
    # What is left is how far the norm's own running mean lags: 9 updates, beside 99 of the average.
    assert mean_off[0] < mean_off[1] / 5
    assert off["averaged"] < 0.2
    assert off["averaged"] < off["copied"] / 4


def test_no_average_is_the_model_itself():
    """The null object has the same interface and no state; neither class loads the state of the other."""
    model = model_with_everything()
    average = NoAverage(model)
    before = copy.deepcopy(model)
    average.update(model)
    assert average.model is model
    assert same(model, before)
    assert average.state_dict() == {}
    average.load_state_dict({})
    with pytest.raises(ValueError, match="averages none"):
        average.load_state_dict(WeightAverage(model, 0.9).state_dict())
    with pytest.raises(KeyError):
        WeightAverage(model, 0.9).load_state_dict({})
    with pytest.raises(RuntimeError, match="Missing key"):
        WeightAverage(model, 0.9).load_state_dict({"updates": 1, "model": {}})


@pytest.mark.parametrize("decay", [-0.1, 1.0, 1.5, math.nan])
def test_invalid_decays_are_refused(decay: float):
    """The message says what was found and what is allowed."""
    with pytest.raises(ValueError, match=r"^decay: found .*, allowed: from 0 to below 1"):
        WeightAverage(nn.Linear(1, 1), decay)
