"""Mixup and CutMix: soft labels that say what is in the image, however an update is cut into micro-batches."""

import itertools

import numpy as np
import pytest
import torch

from classwise.data.batch import Batch
from classwise.data.mixing import Mixing
from tests.helpers.waiting import Waiting

CLASSES = {"label": 3}


def micro_batches(sizes: list[int], seed: int = 0, side: int = 12) -> list[Batch]:
    """Random images with a class, two labels and a number each; some unknown."""
    rng = np.random.default_rng(seed)
    count = sum(sizes)
    images = torch.from_numpy(rng.integers(0, 256, (count, 3, side, side), dtype=np.uint8))
    targets = {
        "label": torch.from_numpy(rng.integers(-1, 3, count)),
        "tags": torch.from_numpy(rng.choice([0.0, 1.0, np.nan], (count, 2), p=[0.5, 0.4, 0.1])).float(),
        "age": torch.from_numpy(np.where(rng.random(count) < 0.2, np.nan, rng.normal(40, 10, count))),
    }
    rows = np.arange(count)
    ends = np.cumsum([0, *sizes])
    return [
        Batch(images[a:b], {name: x[a:b] for name, x in targets.items()}, rows[a:b])
        for a, b in itertools.pairwise(ends)
    ]


def joined(batches: list[Batch]) -> Batch:
    """One batch of all rows."""
    targets = {name: torch.cat([b.targets[name] for b in batches]) for name in batches[0].targets}
    return Batch(torch.cat([b.images for b in batches]), targets, np.concatenate([b.rows for b in batches]))


@pytest.mark.parametrize("alphas", [(0.4, 0.0), (0.0, 1.0), (0.4, 1.0)], ids=["mixup", "cutmix", "both"])
def test_the_rows_are_the_same_however_the_update_is_cut(alphas: tuple[float, float]) -> None:
    """Partners and shares come from (seed, update) over the whole update, so accumulation stays exact."""
    mixing = Mixing(*alphas, 1.0, 7, CLASSES)
    for update in range(8):
        one = mixing(micro_batches([10]), update)[0]
        several = mixing(micro_batches([4, 3, 3]), update)
        assert [len(batch) for batch in several] == [4, 3, 3]
        together = joined(several)
        assert torch.equal(one.images, together.images)
        assert all(
            torch.allclose(x, together.targets[name], equal_nan=True) for name, x in one.targets.items()
        )


def test_an_update_is_a_function_of_seed_and_number() -> None:
    """Twice the same; another update or seed is mixed otherwise."""
    mixing = Mixing(0.4, 0.0, 1.0, 7, CLASSES)
    first = mixing(micro_batches([9]), 3)[0].images
    assert torch.equal(first, mixing(micro_batches([9]), 3)[0].images)
    assert not torch.equal(first, mixing(micro_batches([9]), 4)[0].images)
    assert not torch.equal(first, Mixing(0.4, 0.0, 1.0, 8, CLASSES)(micro_batches([9]), 3)[0].images)


def test_mixup_is_the_sum_of_two_images_and_of_their_labels() -> None:
    """Each mixed image is own * a + (1 - own) * b of two originals, and its shares of the classes say so."""
    before, after = micro_batches([12])[0], Mixing(0.4, 0.0, 1.0, 1, CLASSES)(micro_batches([12]), 0)[0]
    flat = before.images.float().flatten(1).double()
    for row in range(12):
        mixed = after.images[row].double().flatten()
        fits = []
        for other in range(12):
            a, b = flat[row], flat[other]
            own = 1.0 if other == row else float(((mixed - b) @ (a - b)) / ((a - b) @ (a - b)))
            if torch.allclose(own * a + (1 - own) * b, mixed, atol=1e-2):
                fits.append((other, own))
        assert fits
        labels = before.targets["label"]
        expected = torch.zeros(3, dtype=torch.float64)
        other, own = fits[0]
        for share, source in ((own, row), (1 - own, other)):
            if labels[source] >= 0:
                expected[labels[source]] += share
        assert torch.allclose(after.targets["label"][row].double(), expected, atol=1e-3)


def test_cutmix_shares_are_the_areas() -> None:
    """The share of the own image that is left is counted in pixels, to the last one."""
    count, side = 40, 16
    images = torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, side, side).contiguous()
    labels = torch.arange(count) % 3
    batch = Batch(images, {"label": labels}, np.arange(count))
    after = Mixing(0.0, 1.0, 1.0, 5, CLASSES)([batch], 2)[0]
    assert after.images.dtype == torch.uint8
    for row in range(count):
        counts = torch.bincount(after.images[row, 0].flatten().long(), minlength=count) / side**2
        expected = torch.zeros(3)
        for source in range(count):
            expected[labels[source]] += counts[source]
        assert torch.allclose(after.targets["label"][row], expected, atol=1e-6)
        assert int((counts > 0).sum()) <= 2


def test_unknown_answers_keep_only_the_known_share() -> None:
    """A class that is unknown has no share; a number or label with an unknown part is unknown."""
    batch = micro_batches([30])[0]
    after = Mixing(0.4, 0.0, 1.0, 3, CLASSES)([batch], 0)[0]
    sums = after.targets["label"].sum(dim=1)
    assert bool((sums <= 1 + 1e-6).all())
    assert bool((sums < 0.999).any())
    unknown = batch.targets["age"].isnan()
    assert bool(after.targets["age"].isnan()[unknown].all())
    assert int(after.targets["age"].isnan().sum()) > int(unknown.sum())


def test_a_share_of_the_updates_is_mixed_and_both_kinds_take_turns() -> None:
    """mix_share 0.5 leaves about half as they are; with both alphas about half of the mixed are cut (uint8)."""
    mixing, kinds = Mixing(0.4, 1.0, 0.5, 2, CLASSES), []
    for update in range(400):
        batch = mixing(micro_batches([4], side=4), update)[0]
        plain = batch.targets["label"].ndim == 1
        kinds.append("plain" if plain else "cut" if batch.images.dtype == torch.uint8 else "mixed")
    shares = {kind: kinds.count(kind) / len(kinds) for kind in ("plain", "cut", "mixed")}
    assert abs(shares["plain"] - 0.5) < 0.08
    assert abs(shares["cut"] - 0.25) < 0.07


def test_nothing_is_mixed_without_an_alpha_or_in_features() -> None:
    """Off is off, and features of a frozen backbone are no images."""
    batches = micro_batches([5])
    assert Mixing(0.0, 0.0, 1.0, 0, CLASSES)(batches, 0) is batches
    features = [Batch(torch.zeros(5, 8), batches[0].targets, batches[0].rows)]
    assert Mixing(0.4, 1.0, 1.0, 0, CLASSES)(features, 0) is features


@pytest.mark.parametrize("alphas", [(0.4, 0.0), (0.0, 1.0)], ids=["mixup", "cutmix"])
def test_mixing_waits_for_no_device(alphas: tuple[float, float]) -> None:
    """But for what checks class numbers on a CPU, and does not on a GPU (torch's one_hot)."""
    mixing = Mixing(*alphas, 1.0, 7, CLASSES)
    with Waiting() as waiting:
        mixing(micro_batches([5, 4]), 3)
    assert waiting.found.count("_local_scalar_dense") == len(waiting.found) <= 2
