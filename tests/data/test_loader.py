"""Batches: the same whatever the number of workers, the epochs before, or the place to start from."""

import contextlib
import dataclasses
import hashlib
import itertools
import multiprocessing
import os
import random
import signal
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from classwise.data.augment import PRESETS
from classwise.data.batch import Batch
from classwise.data.dataset import ImageDataset
from classwise.data.epochs import TrainingData, ValidationData
from classwise.data.fit import fit_image
from classwise.data.images import read_image
from classwise.data.loader import FeatureLoader, Loader
from classwise.data.sampling import batches_of, epoch_order, query_order
from classwise.errors import ConfigError, ImageError

pytestmark = [
    # Python 3.12 warns of every fork of a process with threads; a machine may have one core only.
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),
]
SIZE = (16, 20)
COUNTS = {"빨강": 6, "green": 4, "파 랑": 1}
LABELS = np.repeat(np.arange(3), list(COUNTS.values()))
ROWS = len(LABELS)


@pytest.fixture
def folder(tmp_path: Path, make_images) -> Path:
    """Eleven small images of three classes."""
    make_images(tmp_path, COUNTS)
    return tmp_path


def loader(folder: Path, batch_size: int = 4, workers: int = 0, augment: str | None = None) -> Loader:
    paths = [folder / label / f"{i:03d}.png" for label, count in COUNTS.items() for i in range(count)]
    changes = None if augment is None else PRESETS[augment]
    dataset = ImageDataset(paths, SIZE, "squash", 10_000, seed=42, augment=changes)
    return Loader(dataset, {"colour": LABELS, "odd": np.arange(ROWS) % 2}, batch_size, workers)


def training(
    folder: Path,
    batch_size: int = 4,
    workers: int = 0,
    augment: str = "strong",
    sampling: str = "balanced",
    micro_batches_per_update: int = 2,
    **options,
) -> TrainingData:
    ids = [f"id-{row}" for row in range(ROWS)]
    options = {"classes": LABELS, "seed": 42} | options
    batches = loader(folder, batch_size, workers, augment)
    return TrainingData(
        batches, ids, sampling=sampling, micro_batches_per_update=micro_batches_per_update, **options
    )


def everything(dataset: Loader, rows: Iterable[int] = range(ROWS), epoch: int = 0) -> Iterator[Batch]:
    """The given rows in batches of the loader's size."""
    return dataset.batches(batches_of(np.array(list(rows)), dataset.batch_size), epoch)


def digest(batches: Iterable[Batch]) -> str:
    """One hash of every pixel, label and row number, and of where the batches end."""
    found = hashlib.sha256()
    for batch in batches:
        found.update(np.ascontiguousarray(batch.images.numpy()).tobytes())
        for name, labels in batch.targets.items():
            found.update(name.encode() + labels.numpy().tobytes())
        found.update(batch.rows.tobytes() + b"|")
    return found.hexdigest()


def flat(updates: Iterable[list[Batch]]) -> list[Batch]:
    return list(itertools.chain.from_iterable(updates))


def test_what_a_batch_holds(folder):
    """uint8 (batch, 3, height, width) in RGB, the labels of its rows by target, and the row numbers."""
    (batch,) = loader(folder).batches([np.array([10, 0, 6])])
    assert batch.images.shape == (3, 3, *SIZE)
    assert batch.images.dtype == torch.uint8
    assert len(batch) == 3
    assert batch.rows.tolist() == [10, 0, 6]
    assert {name: labels.tolist() for name, labels in batch.targets.items()} == {
        "colour": [2, 0, 1],
        "odd": [0, 0, 0],
    }
    assert batch.targets["colour"].dtype == torch.int64
    assert batch.images.float().mean((2, 3)).argmax(1).tolist() == [2, 0, 1]


def test_a_batch_moves_to_a_device(folder):
    """Images and labels move, the rows stay as they are."""
    (batch,) = loader(folder).batches([np.arange(3)])
    moved = batch.to(torch.device("meta"))
    assert moved.images.device.type == "meta"
    assert {labels.device.type for labels in moved.targets.values()} == {"meta"}
    assert moved.rows is batch.rows


def test_any_number_of_workers_gives_the_same_bytes(folder):
    """With augmentation, over two epochs, in one process, one worker and two: one digest."""
    digests = set()
    for workers in (0, 1, 2):
        data = training(folder, workers=workers)
        digests.add(digest(flat(data.updates(0)) + flat(data.updates(1))))
    assert len(digests) == 1


@pytest.mark.parametrize("workers", [0, 2])
def test_a_device_finishes_what_workers_leave_with_the_same_bytes(folder, workers):
    """Mirror, light and erasing, in the parent's batch instead of in the worker; the share of a process that has no
    rows, too."""
    for micro_batches_per_update, world_size, rank in ((2, 1, 0), (2, 2, 1)):
        whole, left = (
            training(
                folder,
                workers=workers,
                micro_batches_per_update=micro_batches_per_update,
                rank=rank,
                world_size=world_size,
            )
            for _ in range(2)
        )
        dataset = dataclasses.replace(left.loader.dataset, augments_on_host=False)
        targets = {name: labels.numpy() for name, labels in left.loader.targets.items()}
        left = dataclasses.replace(left, loader=Loader(dataset, targets, 4, workers))
        for epoch in range(2):
            batches, wanted = flat(left.updates(epoch)), flat(whole.updates(epoch))
            assert digest(batches) != digest(wanted)
            assert digest(batch.to(torch.device("cpu")) for batch in batches) == digest(wanted)
            assert all(batch.to(torch.device("cpu")).device_augment is None for batch in batches)


def test_a_worker_that_lives_on_sees_each_epoch(folder):
    """The same process serves both epochs; the second differs from the first, and is what it would be alone."""
    data = training(folder, workers=1)
    first = digest(flat(data.updates(0)))
    before = {child.pid for child in multiprocessing.active_children()}
    second = digest(flat(data.updates(1)))
    assert {child.pid for child in multiprocessing.active_children()} == before
    assert before
    assert first != second
    assert second == digest(flat(training(folder, workers=0).updates(1)))
    assert first == digest(flat(data.updates(0)))


def test_augmentation_changes_from_epoch_to_epoch(folder):
    """The same row, another epoch: other pixels. The same epoch: the same pixels, in any order of rows."""
    dataset = loader(folder, batch_size=20, augment="strong")
    rows = np.arange(ROWS)
    (zero,), (one,) = dataset.batches([rows], epoch=0), dataset.batches([rows], epoch=1)
    same = [torch.equal(zero.images[row], one.images[row]) for row in rows]
    assert not any(same)
    (turned,) = dataset.batches([rows[::-1].copy()], epoch=0)
    assert torch.equal(turned.images.flip(0), zero.images)


def test_an_epoch_that_was_left_does_not_leak_into_the_next(folder):
    """A pass broken off with batches under way (an early stop, an error) leaves the loader as new."""
    data = training(folder, batch_size=1, workers=1)
    next(data.updates(0))
    assert digest(flat(data.updates(1))) == digest(flat(training(folder, batch_size=1).updates(1)))


@pytest.mark.parametrize("workers", [0, 1])
def test_the_rest_of_an_epoch(folder, workers):
    """Skipping the updates that are done gives the tail of the full epoch, to the byte; skipping all, nothing."""
    data = training(folder, batch_size=2, workers=workers)
    full = list(data.updates(3))
    assert len(full) == data.updates_per_epoch == 3
    for skip in range(4):
        rest = list(data.updates(3, skip))
        assert [len(update) for update in rest] == [len(update) for update in full[skip:]]
        assert digest(flat(rest)) == digest(flat(full[skip:]))


@pytest.mark.parametrize("batch_size", [1, 2, 3, 4, 11, 20])
@pytest.mark.parametrize("accumulate", [1, 2, 3, 20])
def test_updates_are_as_many_batches_as_asked_for(folder, batch_size, accumulate):
    """Every row comes once, in the epoch's order. All updates but the last are full; the last one, and its last
    batch, are as short as they come and still make an update."""
    data = training(folder, batch_size, 0, "none", "shuffle", accumulate)
    updates = list(data.updates(5))
    rows = np.concatenate([batch.rows for batch in flat(updates)])
    np.testing.assert_array_equal(rows, epoch_order("shuffle", LABELS, 42, 5))
    assert data.updates_per_epoch == len(updates) == -(-ROWS // (batch_size * accumulate))
    sizes = [[len(batch) for batch in update] for update in updates]
    assert all(update == [batch_size] * accumulate for update in sizes[:-1])
    assert all(size == batch_size for size in sizes[-1][:-1])
    assert 1 <= sizes[-1][-1] <= batch_size
    assert sum(map(sum, sizes)) == ROWS


def test_the_sampling_is_that_of_the_config(folder):
    """`balanced` reaches the batches: each class as often as the others."""
    rows = np.concatenate([batch.rows for batch in flat(training(folder).updates(0))])
    np.testing.assert_array_equal(rows, epoch_order("balanced", LABELS, 42, 0))
    assert np.ptp(np.bincount(LABELS[rows])) <= 1


def test_rows_have_their_names(folder):
    """The ids for a message, in the order of the rows."""
    assert training(folder).names(np.array([7, 0])) == ["id-7", "id-0"]


@pytest.mark.parametrize("workers", [0, 1])
def test_validation_takes_every_row_once_and_unchanged(folder, workers):
    """In order, the short last batch among them, as `fit_image` makes it: no augmentation, in no pass."""
    data = ValidationData(loader(folder, 4, workers))
    assert len(data) == ROWS
    for _ in range(2):
        batches = list(data.batches())
        assert [len(batch) for batch in batches] == [4, 4, 3]
        np.testing.assert_array_equal(np.concatenate([batch.rows for batch in batches]), np.arange(ROWS))
        images = torch.cat([batch.images for batch in batches]).permute(0, 2, 3, 1).numpy()
        for path, image in zip(data.loader.dataset.paths, images, strict=True):
            np.testing.assert_array_equal(image, fit_image(read_image(path), SIZE, "squash"))
    assert torch.equal(data.targets(torch.device("cpu"))["colour"], torch.from_numpy(LABELS))


def test_no_augmentation_in_training_is_that_of_validation(folder):
    """With the preset `none` both see the same pixels."""
    (train,) = loader(folder, 20, augment="none").batches([np.arange(ROWS)], epoch=4)
    (valid,) = loader(folder, 20).batches([np.arange(ROWS)])
    assert torch.equal(train.images, valid.images)


def failure(dataset: Loader, rows: np.ndarray) -> ImageError:
    """The error of one pass, without the traceback: its frames would hold on to the loader and its workers."""
    try:
        list(everything(dataset, rows))
    except ImageError as error:
        return error.with_traceback(None)
    raise AssertionError("every image was read")


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_file_is_named(folder, workers):
    """From a worker too the error is an ImageError with the file's path; the loader goes on with other rows."""
    bad = folder / "green" / "001.png"
    bad.write_bytes(b"no image")
    dataset = loader(folder, 4, workers)
    error = failure(dataset, np.arange(ROWS))
    assert error.path == bad
    assert str(error).startswith(f"{bad}: ")
    assert [len(batch) for batch in everything(dataset, range(6))] == [4, 2]
    bad.unlink()
    assert failure(dataset, np.array([7])).path == bad


def test_workers_end_with_their_loader_after_an_error(folder):
    """Dropping the loader ends its worker at once: the error keeps no frame that would keep the loader."""
    (folder / "green" / "001.png").write_bytes(b"no image")
    others = {child.pid for child in multiprocessing.active_children()}
    dataset = loader(folder, 4, workers=1)
    with contextlib.suppress(ImageError):
        list(everything(dataset))
    assert {child.pid for child in multiprocessing.active_children()} > others
    del dataset
    assert {child.pid for child in multiprocessing.active_children()} == others


def test_an_image_with_too_many_pixels_is_named(folder):
    """The limit of the config reaches the reading."""
    dataset = ImageDataset([folder / "green" / "000.png"], SIZE, "squash", max_pixels=24 * 32 - 1)
    with pytest.raises(ImageError, match=r"000\.png: .*767"):
        list(Loader(dataset, {}, 1, 0).batches([np.arange(1)]))


@pytest.mark.parametrize("workers", [0, 1])
def test_iterating_leaves_the_global_generators(folder, workers):
    """torch's, numpy's and Python's: validation and loading never touch training's randomness."""
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    data = training(folder, workers=workers)
    list(data.updates(0))
    list(data.updates(1, skip=1))
    list(ValidationData(loader(folder, workers=workers)).batches())
    assert torch.equal(torch.get_rng_state(), before[0])
    np.testing.assert_array_equal(np.random.get_state()[1], before[1])
    assert random.getstate() == before[2]


def test_the_global_generators_do_not_decide(folder):
    """Two runs that start from other global states see the same batches."""
    digests = set()
    for state in (1, 2):
        torch.manual_seed(state)
        np.random.seed(state)
        random.seed(state)
        digests.add(digest(flat(training(folder, workers=1).updates(0))))
    assert len(digests) == 1


@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGINT])
def test_workers_survive_a_signal(folder, kind):
    """Ctrl-C and a stop go to the whole group: the parent still gets every batch that it needs for its
    checkpoint, and ends the workers itself."""
    data = training(folder, batch_size=1, workers=1)
    others = {child.pid for child in multiprocessing.active_children()}
    updates = data.updates(0)
    found = next(updates)
    ours = [child for child in multiprocessing.active_children() if child.pid not in others]
    assert ours
    for child in ours:
        os.kill(child.pid, kind)
    found += flat(updates)
    assert digest(found) == digest(flat(training(folder, batch_size=1).updates(0)))
    assert all(child.is_alive() for child in ours)


def test_two_data_sets_do_not_share_anything(folder):
    """Training and validation loaders used in turn, batch by batch, each give their own rows."""
    train, valid = training(folder, batch_size=2), ValidationData(loader(folder, batch_size=3))
    mixed: tuple[list[Batch], list[Batch]] = ([], [])
    for update, batch in itertools.zip_longest(train.updates(0), valid.batches()):
        mixed[0].extend(update or [])
        mixed[1].extend([batch] if batch else [])
    assert digest(mixed[0]) == digest(flat(train.updates(0)))
    assert digest(mixed[1]) == digest(valid.batches())


@pytest.mark.parametrize("workers", [0, 1])
def test_a_closed_loader_has_no_workers(folder, workers):
    """Closing ends them in the middle of an epoch, twice or without any; the next pass starts new ones."""
    others = {child.pid for child in multiprocessing.active_children()}
    data = training(folder, batch_size=1, workers=workers)
    next(data.updates(0))
    data.loader.close()
    data.loader.close()
    assert {child.pid for child in multiprocessing.active_children()} == others
    assert digest(flat(data.updates(1))) == digest(flat(training(folder, batch_size=1).updates(1)))
    data.loader.close()


def test_answers_of_every_kind(folder):
    """Class numbers, labels there or not, numbers and relevances come as they went in, unknown ones too, and
    move to a device."""
    nan = np.nan
    labels = {
        "class": np.where(LABELS == 1, -1, LABELS),
        "labels": np.where(np.arange(2 * ROWS).reshape(ROWS, 2) % 5 == 0, nan, 1).astype(np.float32),
        "number": np.where(np.arange(ROWS) % 3 == 0, nan, np.arange(ROWS) / 7),
        "relevance": np.stack([np.arange(ROWS) % 4 - 1, np.arange(ROWS) // 3], axis=1),
    }
    dataset = Loader(loader(folder).dataset, labels, 4, 0)
    rows = np.array([9, 0, 5])
    (batch,) = dataset.batches([rows])
    for name, answers_N in labels.items():
        assert batch.targets[name].dtype == torch.from_numpy(answers_N).dtype
        np.testing.assert_array_equal(batch.targets[name].numpy(), answers_N[rows])
        assert batch.to(torch.device("meta")).targets[name].shape == (3, *answers_N.shape[1:])
        all_N = ValidationData(dataset).targets(torch.device("cpu"))[name]
        np.testing.assert_array_equal(all_N.numpy(), answers_N)


@pytest.mark.parametrize(
    ("labels", "complete"),
    [
        (LABELS, True),
        (np.where(np.arange(ROWS) == 3, -1, LABELS), False),
        (np.full(ROWS, -1), False),
        (np.ones((ROWS, 2), np.float32), False),
        (np.arange(ROWS) / 7, False),
        (np.stack([LABELS, LABELS], axis=1), False),
    ],
    ids=["all known", "one unknown", "none known", "multilabel", "numbers", "ranking"],
)
def test_a_batch_is_complete_where_every_label_of_the_set_is_known(folder, labels, complete):
    """Its rows then need not be counted: one unknown class anywhere, or another type of target, and they are."""
    for targets in ({"colour": labels}, {"other": LABELS, "colour": labels}):
        images = Loader(loader(folder).dataset, targets, 4, 0)
        features = FeatureLoader(lambda: torch.zeros(ROWS, 3), targets)
        for source in (images, features):
            rows = np.array([5, 6])  # whose own labels are known
            (batch,) = source.batches([rows])
            assert batch.complete == complete
            assert [part.complete for part in batch.parts(1)] == [complete] * 2


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_are_those_asked_for(folder, workers):
    """Of any sizes, with rows in any order and more than once."""
    parts = [np.array([3]), np.array([10, 3, 0, 0]), np.array([7, 1])]
    found = list(loader(folder, workers=workers).batches(parts))
    assert [batch.rows.tolist() for batch in found] == [part.tolist() for part in parts]


QUERIES = np.array([4, 2, 4, 0, 0, 2, 4, 2, 9, 0, 2])


@pytest.mark.parametrize("workers", [0, 1])
def test_training_keeps_queries_whole(folder, workers):
    """At most two of these queries in a batch of eight, none of them cut, each row once, in the epoch's order."""
    data = training(folder, 8, workers, "strong", "shuffle", 1, queries=QUERIES, classes=None)
    for epoch in range(3):
        batches = flat(data.updates(epoch))
        order = query_order(QUERIES, 42, epoch)
        np.testing.assert_array_equal(np.concatenate([batch.rows for batch in batches]), order)
        held = [set(QUERIES[batch.rows].tolist()) for batch in batches]
        assert [len(queries) for queries in held] == [2, 2]
        assert not held[0] & held[1]
        assert data.updates_per_epoch == 2


def test_validation_keeps_queries_whole(folder):
    """Every row once, query by query; `rows` says which they are, and their images and labels are theirs."""
    plain = {batch.rows[0]: batch for batch in ValidationData(loader(folder, 1)).batches()}
    batches = list(ValidationData(loader(folder, 5), queries=QUERIES).batches())
    held = [set(QUERIES[batch.rows].tolist()) for batch in batches]
    assert held == [{0}, {2}, {4}, {9}]
    rows = np.concatenate([batch.rows for batch in batches])
    np.testing.assert_array_equal(np.sort(rows), np.arange(ROWS))
    for batch in batches:
        for i, row in enumerate(batch.rows):
            assert torch.equal(batch.images[i], plain[row].images[0])
            assert batch.targets["colour"][i] == LABELS[row]


def test_sampling_that_cannot_be(folder):
    """By class where there are none, or where queries have to stay whole."""
    with pytest.raises(ConfigError, match=r"data\.sampling: found 'balanced', but no row has a class"):
        list(training(folder, classes=None).updates(0))
    with pytest.raises(
        ConfigError, match=r"data\.sampling: found 'sqrt', but batches that hold whole queries"
    ):
        list(training(folder, sampling="sqrt", queries=QUERIES).updates(0))


@pytest.mark.parametrize("queries", [None, QUERIES])
@pytest.mark.parametrize("world_size", [2, 3])
def test_processes_share_an_update(folder, world_size, queries):
    """Two ranks of one batch each make the update that one process makes of two: the same images, to the byte,
    in the same number of updates; the last may leave a rank without any."""
    sampling = "balanced" if queries is None else "shuffle"
    single = training(folder, 2, micro_batches_per_update=world_size, sampling=sampling, queries=queries)
    options = {
        "micro_batches_per_update": world_size,
        "sampling": sampling,
        "queries": queries,
        "world_size": world_size,
    }
    ranks = [training(folder, 2, rank=rank, **options) for rank in range(world_size)]
    assert {data.updates_per_epoch for data in ranks} == {single.updates_per_epoch}
    for epoch, skip in ((0, 0), (1, 0), (1, 1)):
        shares = list(zip(*(data.updates(epoch, skip) for data in ranks), strict=True))
        updates = list(single.updates(epoch, skip))
        assert len(shares) == len(updates) == single.updates_per_epoch - skip
        for parts, update in zip(shares, updates, strict=True):
            assert digest([batch for batch in flat(parts) if len(batch)]) == digest(update)


def test_a_rank_without_a_batch(folder):
    """It gets the first one's images with no labels and no rows, so that every rank counts the same updates and
    its parameters get a gradient of 0."""
    data = training(folder, 4, micro_batches_per_update=4, rank=1, world_size=2)
    assert [len(update) for update in data.updates(0)] == [1]
    assert data.first_micro_batch_idx == 2
    data = training(folder, 8, micro_batches_per_update=4, rank=1, world_size=2)
    ((batch,),) = data.updates(0)
    ((first, *_),) = training(folder, 8, micro_batches_per_update=4, rank=0, world_size=2).updates(0)
    assert len(batch) == 0
    assert torch.equal(batch.images, first.images)
    assert all((values == -1).all() for values in batch.targets.values())
    assert data.updates_per_epoch == 1


def features_of(rows: int = ROWS) -> tuple[FeatureLoader, list[int]]:
    """Features that hold their row's number, and a list that grows with each time they are computed."""
    calls: list[int] = []

    def compute() -> torch.Tensor:
        calls.append(rows)
        return torch.arange(rows, dtype=torch.float32)[:, None].expand(rows, 3)

    return FeatureLoader(compute, {"colour": LABELS, "odd": np.arange(rows) % 2}), calls


def test_frozen_epochs_train_on_features(folder):
    """The rows of every update are those that images would have, in the same order, with the same labels; the
    features are computed once, when first needed, and forgotten after the last epoch that needs them."""
    features, calls = features_of()
    data = training(folder, features=features, frozen_epochs=2)
    plain = training(folder)
    assert calls == []
    for epoch in range(2):
        for skip in (0, 1):
            found, wanted = list(data.updates(epoch, skip)), list(plain.updates(epoch, skip))
            assert [len(update) for update in found] == [len(update) for update in wanted]
            for ours, theirs in zip(flat(found), flat(wanted), strict=True):
                np.testing.assert_array_equal(ours.rows, theirs.rows)
                assert ours.images.tolist() == [[row] * 3 for row in theirs.rows.tolist()]
                assert all(torch.equal(ours.targets[name], theirs.targets[name]) for name in theirs.targets)
    assert calls == [ROWS]
    assert digest(flat(data.updates(2))) == digest(flat(plain.updates(2)))
    assert features._features_ND is None
    next(data.updates(1))
    assert calls == [ROWS] * 2


def test_frozen_epochs_validate_on_features(folder):
    """The same for validation, which looks at images again where no epoch is named."""
    features, calls = features_of()
    data = ValidationData(loader(folder), features=features, frozen_epochs=2)
    plain = list(data.batches())
    assert calls == []
    for epoch in (0, 1):
        found = list(data.batches(epoch))
        assert [batch.rows.tolist() for batch in found] == [batch.rows.tolist() for batch in plain]
        assert torch.cat([batch.images for batch in found])[:, 0].tolist() == list(range(ROWS))
    assert digest(data.batches()) == digest(plain)
    assert calls == [ROWS]
    assert digest(data.batches(2)) == digest(plain)
    assert features._features_ND is None


def test_features_of_whole_queries(folder):
    """Queries stay whole in frozen epochs too."""
    features, _ = features_of()
    options = {"sampling": "shuffle", "queries": QUERIES, "classes": None}
    data = training(folder, 8, features=features, frozen_epochs=1, **options)
    plain = training(folder, 8, **options)
    for ours, theirs in zip(flat(data.updates(0)), flat(plain.updates(0)), strict=True):
        np.testing.assert_array_equal(ours.rows, theirs.rows)


def test_features_leave_the_global_generators(folder):
    """Their order is a function of (seed, epoch) as well, and takes nothing from the global generators."""
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    features, _ = features_of()
    list(training(folder, features=features, frozen_epochs=1).updates(0))
    list(ValidationData(loader(folder), features=features, frozen_epochs=1).batches(0))
    assert torch.equal(torch.get_rng_state(), before[0])
    np.testing.assert_array_equal(np.random.get_state()[1], before[1])
    assert random.getstate() == before[2]
