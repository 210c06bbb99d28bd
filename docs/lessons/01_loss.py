# %% [markdown]
# # 1. The loss
#
# A loss says how wrong a model is, as one number. It is itself an `nn.Module`: outputs and targets in, a scalar
# out. `backward()` then fills the gradients of all parameters. Here you write the usual losses by hand, and compare
# them with those of PyTorch and of classwise.

# %%
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from classwise.demo.fashion import read_bundle
from classwise.losses.class_weights import class_weights
from classwise.losses.criterion import Criterion
from classwise.losses.cross_entropy import CrossEntropy
from classwise.losses.focal import Focal

# %% [markdown]
# ## Cross entropy
#
# A model gives one number a class, the *logits*. Softmax makes probabilities of them: exp of each, divided by their
# sum. The loss of an image is -log of the probability of its true class.
#
# For logits 2, 0 and -1 the first class has probability 0.844. If it is the true one, the loss is 0.170; if the
# third is, the loss is 3.170.

# %%
logits = torch.tensor([2.0, 0.0, -1.0])
p = logits.exp() / logits.exp().sum()
assert round(p[0].item(), 3) == 0.844
assert round(-p[0].log().item(), 3) == 0.170
assert round(-p[2].log().item(), 3) == 3.170


# %% [markdown]
# As a module, for a whole batch: the mean of the losses of the images.


# %%
class MyCrossEntropy(nn.Module):
    """Logits (B, K) and class numbers (B,) in, the mean loss out."""

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        log_p = logits - logits.logsumexp(dim=1, keepdim=True)
        return -log_p[torch.arange(len(labels)), labels].mean()


images, labels = (torch.from_numpy(array) for array in read_bundle("train"))
images, labels = images[::47].float() / 255, labels[::47].long()  # every 47th image: 32
torch.manual_seed(0)
model = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
outputs = model(images)
assert len(images) == 32
by_hand = MyCrossEntropy()(outputs, labels)
torch.testing.assert_close(by_hand, F.cross_entropy(outputs, labels))
torch.testing.assert_close(by_hand, CrossEntropy()(outputs, labels))

# %% [markdown]
# ## backward() and the chain of grad_fn
#
# Every result of an operation on something with a gradient remembers, in `grad_fn`, which operation made it and
# from what. The loss is the last link of a chain that leads back to the parameters. `backward()` walks along it.

# %%
chain, link = [], by_hand.grad_fn
while link is not None:
    chain.append(link.name())
    following = [parent for parent, _ in link.next_functions if parent is not None]
    link = following[0] if following else None
assert chain[:2] == ["NegBackward0", "MeanBackward0"]  # the last operations first
assert chain[-1] == "torch::autograd::AccumulateGrad"  # a parameter, whose .grad is filled

# %% [markdown]
# What arrives at the logits has a simple form: probability minus truth, divided by the number of images. It is 0
# where the model is sure and right.

# %%
outputs.retain_grad()
by_hand.backward()
truth = F.one_hot(labels, 10)
torch.testing.assert_close(outputs.grad, (outputs.softmax(dim=1) - truth) / 32)

# %% [markdown]
# Parameters with `requires_grad=False` are left out.

# %%
model.zero_grad()
model[1].bias.requires_grad_(False)
MyCrossEntropy()(model(images), labels).backward()
assert model[1].weight.grad is not None
assert model[1].bias.grad is None

# %% [markdown]
# ## Focal loss, for classes that are rare
#
# With many easy images of frequent classes, the sum of their small losses can outweigh the few hard ones. Focal
# loss multiplies cross entropy by (1 - p)^2: it keeps the loss where the true class is improbable, and takes it
# away where it is probable already.
#
# | p of the true class | cross entropy | focal | factor |
# |---|---|---|---|
# | 0.9 | 0.105 | 0.001 | 0.01 |
# | 0.5 | 0.693 | 0.173 | 0.25 |
# | 0.1 | 2.303 | 1.865 | 0.81 |

# %%
table = {0.9: (0.105, 0.001, 0.01), 0.5: (0.693, 0.173, 0.25), 0.1: (2.303, 1.865, 0.81)}
for probability, wanted in table.items():
    cross_entropy = -torch.tensor(probability, dtype=torch.float64).log().item()
    factor = (1 - probability) ** 2
    assert (round(cross_entropy, 3), round(factor * cross_entropy, 3), round(factor, 2)) == wanted


# %%
class MyFocal(nn.Module):
    """(1 - p)^gamma times cross entropy."""

    def __init__(self, gamma: float = 2.0) -> None:
        super().__init__()
        self.gamma = gamma

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        log_p = logits.log_softmax(dim=1)[torch.arange(len(labels)), labels]
        return (-((1 - log_p.exp()) ** self.gamma) * log_p).mean()


outputs = model(images)
torch.testing.assert_close(MyFocal()(outputs, labels), Focal(gamma=2.0)(outputs, labels))

# %% [markdown]
# ## Label smoothing, for generalization
#
# Instead of demanding probability 1 for the true class, ask for a little less, and spread the rest over all
# classes. With five classes and a smoothing of 0.125 the target of the second class is [0.025, 0.9, 0.025, 0.025,
# 0.025]. A model that is too sure is then wrong as well.

# %%
smoothing = 0.125
target = (1 - smoothing) * F.one_hot(torch.tensor(1), 5) + smoothing / 5
torch.testing.assert_close(target, torch.tensor([0.025, 0.9, 0.025, 0.025, 0.025]))

smooth = 0.9 * F.one_hot(labels, 10) + 0.1 / 10
by_hand = -(smooth * outputs.log_softmax(dim=1)).sum(dim=1).mean()
torch.testing.assert_close(by_hand, CrossEntropy(label_smoothing=0.1)(outputs, labels))

# %% [markdown]
# ## Class weights
#
# Another answer to rare classes: count their images more. With *inverse* weights, 600 T-shirts together weigh as
# much as 6 ankle boots, so one boot weighs 100 times as much as one T-shirt.

# %%
counts = torch.from_numpy(read_bundle("train")[1]).long().bincount()
weights = class_weights("inverse", counts.tolist())
assert (counts[0], counts[9]) == (600, 6)
assert abs(weights[9] / weights[0] - 100) < 1e-9

# %% [markdown]
# ## Several targets
#
# Mask, gender and age can be learned by one model with three heads. Each head has its loss, the losses are added
# up, and the predictions are joined afterwards. In classwise that sum is the criterion.

# %%
torch.manual_seed(0)
outputs = {"mask": torch.randn(8, 3), "gender": torch.randn(8, 2), "age": torch.randn(8, 3)}
truths = {name: torch.randint(0, logits.shape[1], (8,)) for name, logits in outputs.items()}
by_hand = sum(F.cross_entropy(outputs[name], truths[name]) for name in ("mask", "gender"))
by_hand = by_hand + MyFocal()(outputs["age"], truths["age"])
criterion = Criterion(
    {"mask": CrossEntropy(), "gender": CrossEntropy(), "age": Focal()},
    weights={"mask": 1.0, "gender": 1.0, "age": 1.0},
)
torch.testing.assert_close(criterion(outputs, truths), by_hand)

# %% [markdown]
# In a config this is `[loss] name = "cross_entropy"` and, for one target, `[targets.age.loss] name = "focal"`. The
# files are `losses/cross_entropy.py`, `losses/focal.py`, `losses/criterion.py`.
#
# ## Exercise
#
# Which gamma turns focal loss into cross entropy? And what does a model that knows nothing (all logits equal, ten
# classes) pay under cross entropy?

# %% [markdown]
# ### Answer
#
# Gamma 0, since anything to the power of 0 is 1. Every class has a tenth, so the loss is -log(0.1), which is 2.303.

# %%
outputs = model(images)
torch.testing.assert_close(MyFocal(gamma=0.0)(outputs, labels), F.cross_entropy(outputs, labels))
nothing = F.cross_entropy(torch.zeros(32, 10), labels)
assert round(nothing.item(), 3) == 2.303
