"""Near copies are found however they were made, and other drawings are left alone."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from classwise.datacheck import copy_candidates
from classwise.datacheck.copies import CopyPair, NearCopies, copy_groups, find_near_copies
from classwise.datacheck.signature import Signature, UnreadableFile, read_signatures
from tests.helpers.drawings import Drawing, bordered, cut, drawing, resized, write_drawing

COUNT = 80
"""Enough images to measure chance on."""

CHANGES: dict[str, tuple[Callable[[Drawing], Drawing], str]] = {
    "JPEG": (lambda image: image, "the same"),
    "smaller": (lambda image: resized(image, 0.4), "resized"),
    "larger": (lambda image: resized(image, 1.7), "resized"),
    "brighter": (lambda image: cv2.convertScaleAbs(image, alpha=1.15, beta=20), "the same"),
    "less contrast": (lambda image: cv2.convertScaleAbs(image, alpha=0.5, beta=70), "the same"),
    "blurred": (lambda image: cv2.GaussianBlur(image, (0, 0), 1.5), "the same"),
    "mirrored": (lambda image: cv2.flip(image, 1), "mirrored"),
    "upside down": (lambda image: cv2.flip(image, 0), "mirrored"),
    "turned by 90°": (lambda image: np.rot90(image), "rotated by 90°"),
    "turned by 180°": (lambda image: np.rot90(image, 2), "rotated by 180°"),
    "turned by 270°": (lambda image: np.rot90(image, 3), "rotated by 90°"),
    "transposed": (lambda image: image.transpose(1, 0, 2), "mirrored and rotated by 90°"),
    "cropped": (lambda image: cut(image, 0.06, 0.06, 0.06, 0.06), "cropped"),
    "cropped at one side": (lambda image: cut(image, 0, 0, 0.1, 0), "cropped"),
    "border": (lambda image: bordered(image, 12, 12, level=255), "resized"),
    "padded": (lambda image: bordered(image, 20, 0, level=0), "resized"),
}


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> list[Signature]:
    """Different drawings in the same light."""
    folder = tmp_path_factory.mktemp("others")
    return signatures([write_drawing(folder / f"{n}.png", drawing(n)) for n in range(COUNT)])


def signatures(paths: Sequence[Path]) -> list[Signature]:
    found = read_signatures(paths)
    assert all(isinstance(signature, Signature) for signature in found)
    return [signature for signature in found if isinstance(signature, Signature)]


def in_memory(images: Sequence[Drawing], folder: Path) -> list[Signature]:
    return signatures([write_drawing(folder / f"{n}.png", image) for n, image in enumerate(images)])


def ends(found: NearCopies) -> list[tuple[int, int]]:
    return [(pair.a, pair.b) for pair in found.pairs]


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_copy_is_found_and_nothing_else(
    others: list[Signature], tmp_path: Path, change: str
) -> None:
    make, how = CHANGES[change]
    copy = write_drawing(tmp_path / "copy.jpg", make(drawing(33)), quality=60)
    found = find_near_copies([*others, *signatures([copy])])
    assert ends(found) == [(33, COUNT)]
    assert found.pairs[0].how == how
    assert 0.8 < found.pairs[0].value <= 1


def test_different_drawings_in_the_same_light_are_no_copies(others: list[Signature]) -> None:
    found = find_near_copies(others)
    assert found.pairs == ()
    assert found.chance.pairs >= 100
    assert found.expected_false == pytest.approx(COUNT * 1e-4)


@pytest.mark.parametrize("size", [(28, 28), (8, 8)])
def test_small_images_work_too(tmp_path: Path, size: tuple[int, int]) -> None:
    images = [resized(drawing(n), 1)[:64, :64] for n in range(COUNT)]
    small = [cv2.resize(image, size, interpolation=cv2.INTER_AREA) for image in images]
    copy = cv2.convertScaleAbs(cv2.flip(small[5], 1), alpha=0.9, beta=8)
    assert ends(find_near_copies(in_memory([*small, copy], tmp_path))) == [(5, COUNT)]


def test_ten_thousand_equal_images_are_one_group_without_pairs(others: list[Signature]) -> None:
    rows = [others[0]] * 10_000
    found = find_near_copies(rows)
    groups = copy_groups(len(rows), found.pairs, [signature.content for signature in rows])
    assert found.pairs == ()
    assert set(groups) == {0}


def test_many_near_copies_of_one_drawing_are_one_group_of_few_pairs(
    others: list[Signature], tmp_path: Path
) -> None:
    image = drawing(7)
    copies = [
        write_drawing(tmp_path / f"{n}.jpg", cv2.convertScaleAbs(image, alpha=1 - n / 200, beta=n), 70)
        for n in range(60)
    ]
    rows = [*others, *signatures(copies)]
    found = find_near_copies(rows)
    groups = copy_groups(len(rows), found.pairs, [signature.content for signature in rows])
    assert {groups[row] for row in range(COUNT, len(rows))} == {groups[7]}
    assert groups.count(groups[7]) == 61
    assert len(found.pairs) < 4 * 61


def test_data_that_are_nothing_but_copies_are_found_to_be(tmp_path: Path) -> None:
    paths = [
        write_drawing(tmp_path / f"{n}-{part}.jpg", cv2.convertScaleAbs(drawing(n), beta=part), 90)
        for n in range(6)
        for part in range(20)
    ]
    rows = signatures(paths)
    groups = copy_groups(len(rows), find_near_copies(rows).pairs, [row.content for row in rows])
    assert groups == [n for n in range(6) for _ in range(20)]


def test_many_images_are_compared_in_cells(
    others: list[Signature], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copy_candidates, "WHOLE", 20)
    monkeypatch.setattr(copy_candidates, "CELL", 5)
    monkeypatch.setattr(copy_candidates, "BLOCK", 64)
    copies = [write_drawing(tmp_path / f"{n}.jpg", np.rot90(drawing(n)), 70) for n in range(10)]
    found = find_near_copies([*others, *signatures(copies)])
    assert ends(found) == [(n, COUNT + n) for n in range(10)]


def test_one_image_and_none_have_no_copies(others: list[Signature]) -> None:
    assert find_near_copies([]).pairs == ()
    assert find_near_copies(others[:1]).pairs == ()


def test_two_images_are_compared_by_typical_values(others: list[Signature], tmp_path: Path) -> None:
    copy = signatures([write_drawing(tmp_path / "copy.jpg", cv2.flip(drawing(0), 1), quality=90)])
    found = find_near_copies([others[0], *copy])
    assert ends(found) == [(0, 1)]
    assert found.chance.pairs == 0
    assert find_near_copies(others[:2]).pairs == ()


def test_images_without_contrast_are_nobodys_near_copy(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    flat = [np.clip(rng.normal(20, 1, (40, 40, 3)), 0, 255).astype(np.uint8) for _ in range(3)]
    black = [np.zeros((30 + n, 40, 3), np.uint8) for n in range(3)]
    assert find_near_copies(in_memory([*flat, *black], tmp_path)).pairs == ()


def test_an_exact_copy_is_in_its_group_and_in_no_pair(others: list[Signature]) -> None:
    rows = [*others[:3], others[1]]
    found = find_near_copies(rows)
    assert found.pairs == ()
    assert copy_groups(4, found.pairs, [row.content for row in rows]) == [0, 1, 2, 1]


def test_unreadable_files_are_no_copies(others: list[Signature], tmp_path: Path) -> None:
    copy = signatures([write_drawing(tmp_path / "copy.jpg", drawing(2), quality=80)])
    bad = UnreadableFile("damaged")
    found = find_near_copies([bad, *others, bad, *copy, bad])
    assert ends(found) == [(3, COUNT + 2)]


def test_the_order_of_rows_makes_no_difference(others: list[Signature], tmp_path: Path) -> None:
    copies = [write_drawing(tmp_path / f"{n}.jpg", cv2.flip(drawing(n), 0), 70) for n in range(9)]
    rows = [*others, *signatures(copies)]
    order = np.random.default_rng(3).permutation(len(rows)).tolist()
    found = find_near_copies(rows, threads=1)
    shuffled = find_near_copies([rows[row] for row in order], threads=3)
    back = [
        replace(pair, a=min(order[pair.a], order[pair.b]), b=max(order[pair.a], order[pair.b]))
        for pair in shuffled.pairs
    ]
    assert sorted(back, key=lambda pair: (pair.a, pair.b)) == list(found.pairs)
    assert shuffled.chance == found.chance
    assert len(found.pairs) == 9


def test_copies_of_copies_meet(others: list[Signature], tmp_path: Path) -> None:
    """Of a cropped and a turned copy, neither is a turn or a crop of the other alone."""
    image = drawing(4)
    copies = [
        write_drawing(tmp_path / "a.jpg", cut(image, 0.05, 0.05, 0.05, 0.05)),
        write_drawing(tmp_path / "b.jpg", np.rot90(image)),
        write_drawing(tmp_path / "c.jpg", np.rot90(cv2.GaussianBlur(image, (0, 0), 1))),
    ]
    rows = [*others, *signatures(copies)]
    groups = copy_groups(len(rows), find_near_copies(rows).pairs, [None] * len(rows))
    assert groups[4] == groups[COUNT] == groups[COUNT + 1] == groups[COUNT + 2]
    assert len(set(groups)) == COUNT


@given(
    st.integers(1, 30).flatmap(
        lambda count: st.tuples(
            st.just(count),
            st.lists(st.tuples(st.integers(0, count - 1), st.integers(0, count - 1)), max_size=20),
            st.lists(
                st.one_of(st.none(), st.sampled_from([b"x", b"y", b"z"])), min_size=count, max_size=count
            ),
        )
    )
)
def test_groups_are_what_pairs_and_contents_connect(
    drawn: tuple[int, list[tuple[int, int]], list[bytes | None]],
) -> None:
    count, edges, contents = drawn
    pairs = [CopyPair(a, b, value=1.0, how="the same") for a, b in edges]
    groups = copy_groups(count, pairs, contents)

    # Spread each row's number to whatever it is connected with, until nothing changes.
    expected = list(range(count))
    links = edges + [
        (a, b)
        for a in range(count)
        for b in range(a)
        if contents[a] is not None and contents[a] == contents[b]
    ]
    for _ in range(count):
        for a, b in links:
            expected[a] = expected[b] = min(expected[a], expected[b])
    firsts = sorted(set(expected))
    assert groups == [firsts.index(number) for number in expected]


def test_exposures_are_found_where_every_image_has_some(tmp_path: Path) -> None:
    """The nearest neighbors of most images are copies: what they show of chance is bounded."""
    rng = np.random.default_rng(8)
    images = []
    for part in range(40):
        # Parts of one kind, under light that falls off to one side.
        image = 0.6 * drawing(999) + 0.4 * drawing(500 + part)
        for gain in (0.45, 0.6, 0.75, 0.9, 1.05, 1.2):
            light = np.linspace(1 - 0.3 * rng.random(), 1, 160)[None, :, None]
            exposed = gain * image * light + rng.normal(0, 6, image.shape)
            images.append(np.clip(exposed, 0, 255).astype(np.uint8))
    found = in_memory(images, tmp_path)
    groups = copy_groups(len(found), find_near_copies(found).pairs, [one.content for one in found])
    truth = np.repeat(np.arange(40), 6)
    joined = np.array(groups)[:, None] == np.array(groups)
    is_same = truth[:, None] == truth
    assert joined[is_same].mean() > 0.9
    assert not joined[~is_same].any()
