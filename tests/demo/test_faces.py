"""The drawn competition data set: its tree, its proportions and its images."""

import hashlib
import re
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from classwise.demo.canvas import HEIGHT, WIDTH
from classwise.demo.competition import class_number, group_sizes, look_of, write_competition
from classwise.demo.faces import KINDS, Person, draw_face
from classwise.errors import DataError
from tests.helpers.tables import read_csv

PEOPLE, EVAL_PEOPLE = 14, 12


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("masks")
    write_competition(folder, people=PEOPLE, seed=7, processes=1)
    return folder


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def person(gender: str = "female", age: int = 30, seed: int = 0) -> Person:
    return Person("000001", gender, age, look_of(gender, age, np.random.default_rng(seed)))


def test_proportions_of_the_competition() -> None:
    """At full size the groups are the competition's own; smaller sets follow by largest remainder."""
    assert group_sizes(2700) == [553, 409, 83, 728, 818, 109]
    # 300/2700 of each: 61.44, 45.44, 9.22, 80.89, 90.89, 12.11
    assert group_sizes(300) == [62, 45, 9, 81, 91, 12]


@pytest.mark.parametrize("people", [12, 13, 14, 40, 301, 1800])
def test_every_group_has_two_people(people: int) -> None:
    """However few people there are, each group can stand on both sides of a split, and nobody is lost."""
    sizes = group_sizes(people)
    assert sum(sizes) == people
    assert min(sizes) >= 2


def test_too_few_people_are_refused(tmp_path: Path) -> None:
    """Eleven people cannot fill six groups of two; nothing is written."""
    with pytest.raises(DataError, match=r"people = 11.*at least 12"):
        write_competition(tmp_path / "out", people=11)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("kind", "gender", "age", "expected"),
    [
        ("mask1", "male", 29, 0), ("mask5", "male", 30, 1), ("mask3", "male", 60, 2), ("mask2", "female", 18, 3),
        ("mask4", "female", 59, 4), ("mask1", "female", 60, 5), ("incorrect_mask", "male", 18, 6),
        ("incorrect_mask", "female", 60, 11), ("normal", "male", 59, 13), ("normal", "female", 60, 17),
    ],
)  # fmt: skip
def test_class_arithmetic(kind: str, gender: str, age: int, expected: int) -> None:
    """Class = mask * 6 + gender * 3 + age, with the edges of age at 30 and 60."""
    assert class_number(kind, gender, age) == expected


def test_training_table_names_its_folders(tree: Path) -> None:
    """One row a person; the folder is named after the row and is there; no other folder is."""
    table = read_csv(tree / "train/train.csv")
    assert list(table[0]) == ["id", "gender", "race", "age", "path"]
    assert len(table) == PEOPLE
    for row in table:
        assert row["path"] == f"{row['id']}_{row['gender']}_{row['race']}_{row['age']}"
        assert 18 <= int(row["age"]) <= 60
    assert {row["path"] for row in table} == {
        path.name for path in (tree / "train/images").iterdir() if path.is_dir()
    }
    found = Counter((row["gender"], (int(row["age"]) >= 30) + (int(row["age"]) >= 60)) for row in table)
    assert [found[g, a] for g in ("male", "female") for a in (0, 1, 2)] == group_sizes(PEOPLE)


@pytest.mark.parametrize("people", [12, 14, 45, 700])
def test_odd_ids(people: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At any size, one id stands twice, for people whose folders differ, and one id is `000600-1`."""
    monkeypatch.setattr("classwise.demo.competition._draw_person", lambda folder, seed, sitting: None)
    write_competition(tmp_path, people=people, processes=1)
    table = read_csv(tmp_path / "train/train.csv")
    ids = Counter(row["id"] for row in table)
    assert sorted(ids.values()) == [1] * (people - 2) + [2]
    assert ids["000600-1"] == 1
    assert len({row["path"] for row in table}) == people
    assert all(re.fullmatch(r"\d{6}(-1)?", name) for name in ids)


def test_seven_images_a_person_and_mixed_extensions(tree: Path) -> None:
    """Each folder holds the seven kinds once; .jpg, .jpeg and .png all occur, and the content is what they say."""
    starts = {".jpg": b"\xff\xd8\xff", ".jpeg": b"\xff\xd8\xff", ".png": b"\x89PNG\r\n\x1a\n"}
    seen = set()
    for row in read_csv(tree / "train/train.csv"):
        files = [
            path for path in (tree / "train/images" / row["path"]).iterdir() if not path.name.startswith("._")
        ]
        assert sorted(path.stem for path in files) == sorted(KINDS)
        assert all(path.read_bytes().startswith(starts[path.suffix]) for path in files)
        seen |= {path.suffix for path in files}
    assert seen == set(starts)


def test_junk_files_are_no_images(tree: Path) -> None:
    """There are `._*` files beside images and beside folders: small AppleDouble files that nothing can decode."""
    junk = list((tree / "train/images").rglob("._*"))
    assert {len(path.relative_to(tree).parts) for path in junk} == {3, 4}
    for path in junk:
        assert path.with_name(path.name[2:]).exists()
        data = path.read_bytes()
        assert data[:4] == bytes.fromhex("00051607")
        assert cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) is None


def test_template_and_truth(tree: Path) -> None:
    """The template lists the evaluation images with ans 0; the truth lists the same in the same order, and its
    classes are as many as seven images of each person make."""
    info, truth = read_csv(tree / "eval/info.csv"), read_csv(tree / "eval/truth.csv")
    names = [row["ImageID"] for row in info]
    assert names == [row["ImageID"] for row in truth]
    assert {row["ans"] for row in info} == {"0"}
    assert sorted(names) == sorted(path.name for path in (tree / "eval/images").iterdir())
    assert all(re.fullmatch(r"[0-9a-f]{40}\.jpg", name) for name in names)
    assert len(names) == EVAL_PEOPLE * 7
    assert names != sorted(names)
    found = Counter(int(row["ans"]) for row in truth)
    people = group_sizes(EVAL_PEOPLE)
    assert [found[c] for c in range(18)] == [5 * n for n in people] + people + people


def test_image_size(tree: Path) -> None:
    """Every image is 384 wide and 512 high, in colour."""
    images = [
        p for p in tree.rglob("*.*") if p.suffix in {".jpg", ".jpeg", ".png"} and not p.name.startswith("._")
    ]
    assert len(images) == (PEOPLE + EVAL_PEOPLE) * 7
    for path in images:
        image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        assert image.shape == (512, 384, 3) == (HEIGHT, WIDTH, 3)


def test_nothing_half_written_stays(tree: Path) -> None:
    """No file is left over under a name of its making."""
    assert not list(tree.rglob("*.part"))


def test_same_bytes_from_any_number_of_processes(tree: Path, tmp_path: Path) -> None:
    """Two processes write what one wrote, byte for byte; another seed draws other images."""
    told: list[tuple[int, int]] = []
    write_competition(
        tmp_path, people=PEOPLE, seed=7, processes=2, progress=lambda *count: told.append(count)
    )
    assert digests(tmp_path) == digests(tree)
    total = (PEOPLE + EVAL_PEOPLE) * 7
    assert told == [(done, total) for done in range(7, total + 1, 7)]


def test_images_never_repeat(tree: Path) -> None:
    """No two images are the same, so nobody of the evaluation set was drawn for training too."""
    images = [digest for name, digest in digests(tree).items() if "images" in name and "._" not in name]
    assert len(set(images)) == len(images) == (PEOPLE + EVAL_PEOPLE) * 7


def test_other_seed_other_people(tmp_path: Path, tree: Path) -> None:
    """The seed decides who there is."""
    names = [{p.name for p in (tree / "train/images").iterdir()}]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("classwise.demo.competition._draw_person", lambda folder, seed, sitting: None)
        write_competition(tmp_path, people=PEOPLE, seed=8, processes=1)
    assert names[0] != {p.name for p in (tmp_path / "train/images").iterdir()}


def test_a_face_is_a_function_of_its_generator() -> None:
    """The same person, kind and generator give the same image; another generator another one."""
    first, same, other = (draw_face(person(), "normal", np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert first.dtype == np.uint8
    assert first.shape == (512, 384, 3)
    assert np.array_equal(first, same)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("gender", ["male", "female"])
def test_a_mask_covers_what_it_should(gender: str) -> None:
    """Against the bare face, a worn mask changes nose and mouth; a wrong one changes the chin, never the nose."""

    def change(kind: str, seed: int) -> np.ndarray:
        # The mask is drawn after everything that moves the face, so pose and features are the same in both; what
        # stands after it in the generator is only light, a factor between 0.85 and 1.1 and some grain.
        bare, masked = (draw_face(person(gender), k, np.random.default_rng(seed)) for k in ("normal", kind))
        return np.abs(bare.astype(int) - masked.astype(int)).mean(2)

    # Face coordinates sit within some 35 pixels of (192, 238): nose at +25, below the mouth at +95.
    nose, chin = np.s_[255:270, 180:204], np.s_[325:345, 172:212]
    worn = np.mean([change("mask1", seed)[nose].mean() for seed in range(12)])
    wrong_nose = np.mean([change("incorrect_mask", seed)[nose].mean() for seed in range(12)])
    wrong_chin = np.mean([change("incorrect_mask", seed)[chin].mean() for seed in range(12)])
    assert worn > 2 * wrong_nose
    assert wrong_chin > 2 * wrong_nose


def test_a_person_looks_alike_in_all_images() -> None:
    """Two images of one person are nearer to each other in their hair than images of different people, so a
    split by image would leak."""

    def hair(who: Person, seed: int) -> np.ndarray:
        return draw_face(who, "normal", np.random.default_rng(seed))[105:125, 180:205].mean((0, 1))

    crowd = [person("female", 25, seed) for seed in range(12)]
    looks = np.array([[hair(who, 2 * i + shot) for shot in (0, 1)] for i, who in enumerate(crowd)])
    within = np.abs(looks[:, 0] - looks[:, 1]).mean()
    between = np.abs(looks[:, 0] - np.roll(looks[:, 1], 1, axis=0)).mean()
    assert within < between / 1.5


def test_no_single_feature_decides() -> None:
    """Gender shows in overlapping features, and the boundary at 30 is blurred: the best threshold on any one of
    them is wrong for at least one person in twenty, or one in four about the boundary."""
    rng = np.random.default_rng(3)
    men, women = ([look_of(g, 40, rng) for _ in range(200)] for g in ("male", "female"))
    for name in ("length", "jaw", "brow", "lash", "lips", "lip_red", "stubble", "earring", "eye"):
        assert best_error([getattr(x, name) for x in men], [getattr(x, name) for x in women]) > 1 / 20, name
    younger, older = ([look_of("male", age, rng) for _ in range(200)] for age in (27, 32))
    for name in ("wrinkles", "bags", "gray", "hairline", "spots"):
        assert best_error([getattr(x, name) for x in younger], [getattr(x, name) for x in older]) > 1 / 4, (
            name
        )


def best_error(first: list[float], second: list[float]) -> float:
    """The smallest share of wrong answers of any threshold, in either direction."""
    values = np.array(first + second, float)
    label = np.repeat([0, 1], [len(first), len(second)])
    wrong = [np.mean((values > cut) != label) for cut in np.unique(values)]
    return float(min(*wrong, *(1 - w for w in wrong)))
