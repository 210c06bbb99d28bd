# %% [markdown]
# # 3. The metric
#
# The loss is for the optimizer: it needs a gradient. The metric is for you: it says how good the predictions are.
# Here you count accuracy, precision, recall and F1 by hand, see why F1 is the one for imbalanced classes, and walk
# into two mistakes that are easily made with it.

# %%
import math

import torch
from sklearn.metrics import f1_score

from classwise.demo.fashion import read_bundle
from classwise.metrics.classification import LabelMetric
from classwise.metrics.ranking import RankingMetric
from classwise.metrics.regression import RegressionMetric

# %% [markdown]
# ## Everything comes from one table
#
# Ten images: six cats, three dogs, one bird. Count for every true class what was predicted: the confusion matrix.
#
# | true | predicted cat | dog | bird |
# |---|---|---|---|
# | cat | 5 | 1 | 0 |
# | dog | 1 | 2 | 0 |
# | bird | 1 | 0 | 0 |

# %%
true = torch.tensor([0, 0, 0, 0, 0, 0, 1, 1, 1, 2])
predicted = torch.tensor([0, 0, 0, 0, 0, 1, 0, 1, 1, 0])
confusion = torch.zeros(3, 3)
for t, p in zip(true, predicted, strict=True):
    confusion[t, p] += 1
assert confusion.tolist() == [[5, 1, 0], [1, 2, 0], [1, 0, 0]]

# %% [markdown]
# - **Accuracy**: hits by all images, 7 of 10.
# - **Precision** of a class: of those that were called so, how many are. Cat: 5 of 7, 0.714.
# - **Recall** of a class: of those that are, how many were found. Cat: 5 of 6, 0.833.
# - **F1** of a class: twice the hits, divided by both counts together. Cat: 10 / 13, 0.769; dog 0.667; bird 0.
# - **Macro F1**: the mean over the classes, each counting the same: 0.479.

# %%
hits, actual, called = confusion.diag(), confusion.sum(dim=1), confusion.sum(dim=0)
accuracy = hits.sum() / confusion.sum()
precision, recall = hits / called.clamp(min=1), hits / actual.clamp(min=1)
f1 = 2 * hits / (actual + called)
assert accuracy == 7 / torch.tensor(10.0)
assert round(precision[0].item(), 3) == 0.714
assert round(recall[0].item(), 3) == 0.833
assert abs(f1[0].item() - 10 / 13) < 1e-6
assert [round(value, 3) for value in f1.tolist()] == [0.769, 0.667, 0]
assert round(f1.mean().item(), 3) == 0.479

# %% [markdown]
# ## The same with classwise, and with scikit-learn
#
# `update` counts a batch, `compute` makes scores of the counts. So it does not matter in which batches the images
# come.

# %%
metric = LabelMetric(3)
for rows in torch.arange(10).split(4):
    metric.update(predicted[rows], true[rows])
scores = metric.compute()
reference = f1_score(true, predicted, labels=[0, 1, 2], average="macro", zero_division=0)
assert abs(scores["macro_f1"] - f1.mean().item()) < 1e-7
assert abs(scores["macro_f1"] - reference) < 1e-12
assert abs(scores["accuracy"] - 0.7) < 1e-12

# %% [markdown]
# ## Balanced or not: accuracy or F1
#
# On the bundled clothes, a model that always says T-shirt is right in 600 of 1,492 cases: an accuracy of 0.402. It
# is useless, and macro F1 says so: 0.057. For classes of equal size both tell much the same story; for others,
# select by F1.

# %%
labels = torch.from_numpy(read_bundle("train")[1]).long()
lazy = LabelMetric(10)
lazy.update(torch.zeros_like(labels), labels)
assert (int((labels == 0).sum()), len(labels)) == (600, 1492)
assert round(lazy.compute()["accuracy"], 3) == 0.402
assert round(lazy.compute()["macro_f1"], 3) == 0.057

# %% [markdown]
# ## Mistake 1: the mean of batch scores
#
# Scores of batches cannot be averaged. Many training scripts compute F1 for each batch and average: the same ten
# predictions in batches of 4, 4 and 2 give 0.333 or 0.611, depending on what is done with classes that a batch does
# not have. The right number, 0.479, is neither.

# %%
batches = torch.arange(10).split(4)
all_classes = [
    f1_score(true[b], predicted[b], labels=[0, 1, 2], average="macro", zero_division=0) for b in batches
]
present = [f1_score(true[b], predicted[b], average="macro", zero_division=0) for b in batches]
assert [round(sum(values) / 3, 3) for values in (all_classes, present)] == [0.333, 0.611]

# %% [markdown]
# ## Mistake 2: classes that are not there
#
# If a validation set happens to have no bird, and none is predicted, F1 of bird is 0 / 0. Leaving it out makes the
# mean of two classes out of three, and the score jumps. classwise counts it as 0, as scikit-learn does with
# `labels=` and `zero_division=0`, so that a score stands for the same list of classes always; the report says which
# classes had no rows.

# %%
only = LabelMetric(3)
only.update(torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1]))
assert abs(only.compute()["macro_f1"] - (2 / 3 + 2 / 3 + 0) / 3) < 1e-12

# %% [markdown]
# ## Numbers and rankings
#
# A **regression** target is measured by the mean absolute error (MAE) or the mean squared error (MSE). Predicted 3,
# 5, 8 where 2, 5, 10 is true: MAE 1, MSE 1.667.

# %%
values, truth = torch.tensor([3.0, 5.0, 8.0]).double(), torch.tensor([2.0, 5.0, 10.0]).double()
regression = RegressionMetric()
regression.update(values, truth)
assert (values - truth).abs().mean() == regression.compute()["mae"] == 1
assert round(((values - truth) ** 2).mean().item(), 3) == round(regression.compute()["mse"], 3) == 1.667

# %% [markdown]
# A **ranking** puts the images of a query in order. Say the second and the fourth of four are relevant. **MRR** is
# one by the place of the first relevant one: 0.5. **MAP** averages the precision at each relevant place: (1/2 +
# 2/4) / 2 = 0.5. **NDCG** gives 1 / log2(place + 1) for each, divided by what the best order would get: 0.651.

# %%
relevance = [0, 1, 0, 1]
gain = sum(r / math.log2(place + 1) for place, r in enumerate(relevance, start=1))
best = sum(r / math.log2(place + 1) for place, r in enumerate(sorted(relevance, reverse=True), start=1))
ranking = RankingMetric()
ranking.update(torch.tensor([4.0, 3.0, 2.0, 1.0]), torch.tensor([[r, 0] for r in relevance]))
found = ranking.compute()
assert found["mrr"] == 0.5
assert found["map"] == (1 / 2 + 2 / 4) / 2 == 0.5
assert round(gain / best, 3) == round(found["ndcg"], 3) == 0.651

# %% [markdown]
# The files are `metrics/classification.py` and `metrics/scores.py`, then `metrics/regression.py` and
# `metrics/ranking.py`.
#
# ## Exercise
#
# A model with perfect predictions for nine of ten classes calls all 6 ankle boots sneakers. By how much can macro
# F1 rise at most if it learns the boots? And accuracy, on the 1,492 images?

# %% [markdown]
# ### Answer
#
# Macro F1 by 0.1 for the boots, and a little for the sneakers, which are called too often until then. Accuracy by 6
# of 1,492, which is 0.004.

# %%
without = LabelMetric(10)
without.update(torch.where(labels == 9, 7, labels), labels)
sneakers = int((labels == 7).sum())
gain = 1 - without.compute()["macro_f1"]
assert abs(gain - (0.1 + 0.1 * (1 - 2 * sneakers / (2 * sneakers + 6)))) < 1e-12
assert round(1 - without.compute()["accuracy"], 3) == 0.004
