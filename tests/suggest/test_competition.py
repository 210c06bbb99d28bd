"""The face-mask competition's tree as a table, drawn here with the oddities of the real one."""

import pytest

from classwise.data.sources import read_source
from classwise.data.split import split_rows
from classwise.data.table import write_table
from classwise.data.target_from_table import make_target
from classwise.errors import DataError
from classwise.suggest.competition import competition_table, is_competition

NAMES = ["mask1.jpg", "mask2.jpeg", "mask3.png", "mask4.JPG", "mask5.jpg", "incorrect_mask.jpg", "normal.png"]
PEOPLE = [("000600-1", "female", 60), ("007", "male", 18), ("1e5", "female", 29), ("000600-1", "male", 44)]


@pytest.fixture
def tree(tmp_path, make_table):
    """Four people, two of whom share an id; junk among the images; an `eval` folder that is not read."""
    root = tmp_path / "얼굴 data"
    rows = []
    for id, gender, age in PEOPLE:
        folder = f"{id}_{gender}_Asian_{age}"
        (root / "train/images" / folder).mkdir(parents=True)
        for name in (*NAMES, "._mask1.jpg", ".DS_Store"):
            (root / "train/images" / folder / name).touch()
        rows.append({"id": id, "gender": gender, "race": "Asian", "age": age, "path": folder})
    make_table(root / "train/train.csv", rows)
    (root / "train/images/._007_male_Asian_18").touch()
    (root / "eval/images").mkdir(parents=True)
    make_table(root / "eval/info.csv", [{"ImageID": "ab.jpg", "ans": 0}])
    return root


def test_a_row_an_image(tree):
    """Seven images a person with mask, gender, age and person; ids are text, and paths lead to files."""
    found = competition_table(tree)
    assert found.table.columns == ["path", "person", "mask", "gender", "age"]
    assert found.images == tree / "train" / "images"
    assert all((found.images / path).is_file() for path in found.table["path"])
    assert found.table.filter(path="007_male_Asian_18/mask4.JPG").rows() == [
        ("007_male_Asian_18/mask4.JPG", "007", "wear", "male", "18")
    ]
    assert found.table.height == 28
    assert found.table["person"].unique(maintain_order=True).to_list() == ["000600-1", "007", "1e5"]
    counts = found.table["mask"].value_counts()
    assert dict(counts.iter_rows()) == {"wear": 20, "incorrect": 4, "normal": 4}


def test_junk_is_left_out_and_counted(tree):
    """Two hidden files a person."""
    assert competition_table(tree).notes == ("8 hidden or other files were left out",)
    for junk in tree.rglob(".*"):
        junk.unlink()
    assert competition_table(tree).notes == ()


def test_an_id_of_two_people_stays_on_one_side(tree, tmp_path):
    """They are told apart by their folder, and grouped by their id; gender and age are each their own."""
    table = competition_table(tree).table
    shared = table.filter(person="000600-1")
    assert shared.height == 14
    assert set(shared.select("gender", "age").iter_rows()) == {("female", "60"), ("male", "44")}
    write_table(table, tmp_path / "samples.csv")
    samples = read_source(tmp_path / "samples.csv", tree / "train/images", "path", None, "person")
    target = make_target("mask", "class", "mask", *5 * [None], table, "samples.csv")
    strata = target.strata(target.encode(table, "samples.csv"))
    for seed in range(5):
        valid = split_rows(strata, samples.groups, 0.3, seed)
        sides = [{samples.groups[i] for i in range(28) if valid[i] == side} for side in (True, False)]
        assert sides[0]
        assert sides[1]
        assert not sides[0] & sides[1]


def test_the_tree_is_recognized(tree, tmp_path):
    """By its table and its folder, also from inside `train`; the evaluation half and other folders are none."""
    assert is_competition(tree)
    assert is_competition(tree / "train")
    assert competition_table(tree / "train").table.equals(competition_table(tree).table)
    assert not is_competition(tree / "eval")
    assert not is_competition(tree / "train" / "images")
    with pytest.raises(
        DataError, match=r"eval: not the folder of the face-mask competition: train/train\.csv"
    ):
        competition_table(tree / "eval")
    (tree / "train/train.csv").write_text("id,label\n1,2\n")
    assert not is_competition(tree)


def test_a_person_without_a_folder(tree):
    """The row of the table and the folder that it asks for."""
    folder = tree / "train/images/007_male_Asian_18"
    folder.rename(folder.with_name("elsewhere"))
    with pytest.raises(DataError, match=r"train\.csv: row 2: there is no folder .*007_male_Asian_18$"):
        competition_table(tree)


def test_a_person_without_images(tree):
    """Junk alone is none."""
    for name in NAMES:
        (tree / "train/images/1e5_female_Asian_29" / name).unlink()
    with pytest.raises(DataError, match=r"train\.csv: row 3: no images in .*1e5_female_Asian_29$"):
        competition_table(tree)


def test_a_file_name_that_says_no_mask(tree):
    """It is named with what is allowed: guessing would make a wrong label."""
    (tree / "train/images/007_male_Asian_18/mask6.jpg").touch()
    with pytest.raises(DataError, match=r"mask6\.jpg: found the name 'mask6', allowed: mask1, .*, normal$"):
        competition_table(tree)


def test_an_empty_cell_of_the_table(tree):
    """The row and the column are named."""
    text = (tree / "train/train.csv").read_text()
    (tree / "train/train.csv").write_text(text.replace("male,Asian,18", "male,Asian,"))
    with pytest.raises(DataError, match=r"train\.csv: column 'age' \(competition\) is empty in row 2"):
        competition_table(tree)
