"""The page against the files it is made from."""

import base64
import hashlib
import json
import os
import re
import shutil
from pathlib import Path

import pytest

from classwise.errors import DataError
from classwise.report import mistakes, scores
from classwise.report.environment import breakable
from classwise.report.mistakes import MOST_OF_CLASS, TILES
from classwise.report.page import duration, write_report
from classwise.report.read import read_run
from classwise.report.thumbnails import BUDGET, file_names, thumbnails
from tests.helpers.browsed import Page
from tests.helpers.fabricated import LABELS, fabricate_run
from tests.helpers.tables import read_csv

HOSTILE = {
    "<script>alert(1)</script>": [
        "<img src=x onerror=alert(1)>",
        '" onload="alert(1)',
        "x" * 200,
        "שלום עולם",
    ],
    "'; DROP": ["{{ 7 * 7 }}", "</style><script>", "مرحبا بالعالم", "a'b\"c&amp;"],
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fabricate_run(tmp_path_factory.mktemp("full"))


@pytest.fixture(scope="module")
def page(run: Path) -> Page:
    return Page(write_report(run))


@pytest.fixture(scope="module")
def metrics(run: Path) -> dict:
    return json.loads((run / "metrics.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("name", "wrapped"),
    [
        ("tf_efficientnet_lite0.in1k", "tf_|efficientnet_|lite0.|in1k"),
        ("vit-tiny/patch16_224", "vit-|tiny/|patch16_|224"),
        ("0.25", "0.25"),
        ("lr=1e-05", "lr=|1e-05"),
        ("2026-12-01", "2026-12-01"),
        ("128 × 96", "128 × 96"),
        ("a_<b>", "a_&lt;b&gt;"),
        ("", ""),
    ],
)
def test_names_wrap_behind_separators(name: str, wrapped: str) -> None:
    """Not within a word or a number, and escaped as everything is."""
    assert breakable(name) == wrapped.replace("|", "<wbr>")


def test_the_name_of_the_model_wraps_behind_separators(tmp_path: Path) -> None:
    """Which does not change its text."""
    folder = fabricate_run(tmp_path, people=20, epochs=2, images=False)
    status = json.loads((folder / "status.json").read_text(encoding="utf-8"))
    status["model"]["backbone"] = "tf_efficientnet_lite0"
    (folder / "status.json").write_text(json.dumps(status), encoding="utf-8")
    found = Page(write_report(folder))
    assert "<bdi>tf_<wbr>efficientnet_<wbr>lite0</bdi>" in found.source
    assert "tf_efficientnet_lite0" in found.text


def test_headline_is_the_best_score(page: Page, metrics: dict) -> None:
    """The number at the top is metrics.json's, with its epoch and what it is taken over."""
    assert f'<p class="value">{metrics["value"]:.3f}</p>' in page.source
    assert f"best in epoch {metrics['epoch']}" in page.text
    assert "macro F1 of mask × gender × age" in page.text


def test_confusion_matrices_equal_metrics_json(page: Page, metrics: dict) -> None:
    """Every count of every matrix on the page is the file's, the joint's 18 x 18 included."""
    assert page.confusion("mask × gender × age") == metrics["joint"]["confusion"]
    for target in LABELS:
        assert page.confusion(target) == metrics["targets"][target]["confusion"]


def test_class_scores_equal_metrics_json(page: Page, metrics: dict) -> None:
    """The joint's table holds each class's support, F1, precision and recall, the rarest class first."""
    table = next(t for t in page.tables if len(t) == 19 and t[0][-1] == "recall")
    wanted = {
        row["label"]: [str(row["support"]), *(f"{row[key]:.3f}" for key in ("f1", "precision", "recall"))]
        for row in metrics["joint"]["per_class"]
    }
    assert {row[0]: [row[2].removeprefix("† "), *row[3:]] for row in table[1:]} == wanted
    training = [int(row[1].replace(",", "")) for row in table[1:]]
    assert training == sorted(training)


def test_row_and_group_counts_equal_split_csv(page: Page, run: Path) -> None:
    """Rows and groups per split are those of split.csv, counted here with csv and sets."""
    rows = read_csv(run / "split.csv")
    train, valid = ([row for row in rows if row["split"] == side] for side in ("train", "valid"))
    assert f"{len(train):,} training rows and {len(valid):,} validation rows" in page.text
    groups = [len({row["group"] for row in side}) for side in (train, valid)]
    assert f"{groups[0]} in training, {groups[1]} in validation, none in both" in page.text


def test_class_counts_and_achieved_share_equal_status_json(page: Page, run: Path) -> None:
    """The data section lists each class's rows per split and the share that validates, the rarest class first."""
    labels = json.loads((run / "status.json").read_text(encoding="utf-8"))["data"]["labels"]["age"]
    labels.sort(key=lambda row: row["train"])
    table = next(t for t in page.tables if t[0][-1] == "share" and t[1][0] == labels[0]["label"])
    wanted = [
        [
            row["label"],
            f"{row['train']:,}",
            f"{row['valid']:,}",
            f"{row['valid'] / (row['train'] + row['valid']):.1%}",
        ]
        for row in labels
    ]
    assert table[1:] == wanted


def test_group_on_both_sides_is_told(tmp_path: Path) -> None:
    """A split that leaks a group says so on the page, whatever status.json claims."""
    run = fabricate_run(tmp_path, people=20, epochs=2, images=False)
    text = (run / "split.csv").read_text(encoding="utf-8")
    (run / "split.csv").write_text(text.replace("000003-1,train", "000002-1,train", 1), encoding="utf-8")
    assert "1 in both" in Page(write_report(run)).text


def test_worst_mistakes_are_the_most_confident_wrong_rows(page: Page, run: Path) -> None:
    """Each target shows of each class its surest wrong rows, the rarest class first, with an image each."""
    rows = read_csv(run / "predictions.csv")
    data = json.loads((run / "status.json").read_text(encoding="utf-8"))["data"]
    wanted = []
    for target in LABELS:
        wrong = [row for row in rows if row[target] != row[f"{target}_true"]]
        assert f"{len(wrong)} of {len(rows)} predictions are wrong" in page.text
        wrong.sort(key=lambda row: -float(row[f"{target}_p_{row[target]}"]))
        train = {row["label"]: row["train"] for row in data["labels"][target]}
        classes = sorted({row[f"{target}_true"] for row in wrong}, key=lambda label: (train[label], label))
        for label in classes:
            of_class = [row for row in wrong if row[f"{target}_true"] == label]
            support = sum(row[f"{target}_true"] == label for row in rows)
            assert f"{len(of_class)} of {support} wrong; {train[label]:,} training rows" in page.text
            wanted += [
                row["id"] for row in of_class[: min(MOST_OF_CLASS, TILES // len(LABELS) // len(classes))]
            ]
    assert page.values("alt") == wanted


def test_mistakes_name_the_file_of_the_image(page: Page, run: Path) -> None:
    """Here with its folder, since the files of all people have the same names."""
    paths = {row["id"]: row["path"] for row in read_csv(run / "split.csv")}
    assert page.values("alt")
    for id_ in page.values("alt"):
        assert f'title="{id_}">{paths[id_]}</bdi>' in page.source
    assert file_names({"a": "x/1.png", "b": "y/1.png", "c": "y/2.png"}) == {
        "a": "x/1.png",
        "b": "y/1.png",
        "c": "y/2.png",
    }
    assert file_names({"a": "x/1.png", "b": "y/2.png"}) == {"a": "1.png", "b": "2.png"}


def test_where_room_is_short_the_rarest_classes_have_it(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two images each, as many as there is room for, and the page says which."""
    copied = tmp_path / "run"
    shutil.copytree(run, copied)
    monkeypatch.setattr(mistakes, "TILES", 4 * len(LABELS))
    shown = Page(write_report(copied))
    assert "shown are the most confident ones of each of the 2 rarest classes with any." in shown.text
    assert len(shown.values("alt")) == 4 * len(LABELS)


def test_images_stay_within_their_budget(run: Path) -> None:
    """They are made smaller as long as all together are over it."""
    files = read_run(run)
    ids = read_csv(run / "predictions.csv")[0]["id"], read_csv(run / "predictions.csv")[1]["id"]
    sizes = [
        sum(len(image.uri) for image in thumbnails(files, ids, budget=budget).values())
        for budget in (BUDGET, 5_000, 1)
    ]
    assert sizes[0] > 5_000 > sizes[1] == sizes[2]  # there is no smaller one


def test_unreadable_image_says_so(tmp_path: Path) -> None:
    """An image that is gone, cut short, or outside the folder leaves a tile with the reason."""
    run = fabricate_run(tmp_path, people=20, epochs=2)
    for path in (tmp_path / "images").rglob("*.jpg"):
        path.write_bytes(path.read_bytes()[:200])
    page = Page(write_report(run))
    assert page.elements["img"] == 0
    assert "No image: " in page.text
    text = (run / "split.csv").read_text(encoding="utf-8")
    (run / "split.csv").write_text(re.sub(r"(valid),", r"\1,../", text), encoding="utf-8")
    assert "is outside the image folder" in Page(write_report(run)).text


def test_absolute_paths_inside_the_folder_are_images_too(tmp_path: Path) -> None:
    """split.csv may name an image absolutely; one outside the folder is not opened, however it is written."""
    run = fabricate_run(tmp_path, people=20, epochs=2)
    relative = Page(write_report(run)).elements["img"]
    text = (run / "split.csv").read_text(encoding="utf-8")
    (run / "split.csv").write_text(text.replace("valid,", f"valid,{tmp_path}/images/"), encoding="utf-8")
    assert Page(write_report(run)).elements["img"] == relative > 0
    (tmp_path / "elsewhere").symlink_to(tmp_path / "images")
    for prefix in (f"{tmp_path}/elsewhere/", "../elsewhere/", f"{tmp_path}/images/../elsewhere/"):
        (run / "split.csv").write_text(text.replace("valid,", f"valid,{prefix}"), encoding="utf-8")
        assert Page(write_report(run)).elements["img"] == 0


def test_korean_labels_are_on_the_page(page: Page) -> None:
    """Labels and the run's name appear in their own script, in tables and in the figures' text."""
    assert "마스크 분류" in page.text
    assert all(label in page.text for label in LABELS["mask"])
    assert re.search(r"<text[^>]*>[^<]*(착용|여성|남성)", page.source)


def test_page_is_self_contained(page: Page) -> None:
    """One script, which the policy names by its digest, no frame, no outside address; the policy forbids the rest."""
    assert not page.elements.keys() & {"iframe", "object", "embed", "form", "base"}
    (script,) = re.findall(r"<script>(.*?)</script>", page.source, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    for attribute in ("src", "href"):
        assert all(value.startswith(("data:", "#")) for value in page.values(attribute))
    assert "url(" not in page.source
    assert "@import" not in page.source
    policy = next(value for value in page.values("content") if "default-src" in value)
    assert policy.startswith(
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}';"
    )


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    """Markup, quotes and template syntax in labels, targets, ids and warnings come out as themselves."""
    run = fabricate_run(tmp_path, people=40, epochs=3, labels=HOSTILE, name="<b onclick=alert(1)>")
    status = json.loads((run / "status.json").read_text(encoding="utf-8"))
    status["data"]["warnings"] = ["<svg onload=alert(2)>", "a name that is no UTF-8: \udce9"]
    status["data"]["bad_images"] = [{"path": "</ul><script>alert(3)</script>.jpg", "reason": '"><img src=y>'}]
    status["reason"] = "<iframe src=//evil.example>"
    (run / "status.json").write_text(json.dumps(status | {"state": "failed"}), encoding="utf-8")
    (run / "log.txt").write_text("</pre><script>alert(4)</script>\n", encoding="utf-8")
    page = Page(write_report(run))
    assert not page.elements.keys() & {"iframe", "b"}
    assert page.elements["script"] == 1
    assert page.elements["style"] == 1
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    assert all(value.startswith(("data:", "#")) for name in ("src", "href") for value in page.values(name))
    for text in [
        *HOSTILE,
        *(label for labels in HOSTILE.values() for label in labels),
        "<svg onload=alert(2)>",
        "a name that is no UTF-8: ?",
    ]:
        assert text in page.text


def test_interrupted_run_without_metrics(tmp_path: Path) -> None:
    """A run cut off after its first epoch has a page that says so, with its curves and no scores."""
    run = fabricate_run(tmp_path, people=20, epochs=1, state="interrupted", metrics=False, images=False)
    page = Page(write_report(run))
    assert "This run was interrupted after epoch 1" in page.text
    assert "There are no metrics in this run directory yet." in page.text
    assert "stopped by SIGINT" in page.text
    assert page.values("aria-label").count("Loss per epoch") == 1
    assert not any(name.startswith("Confusion") for name in page.table_names)


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("finished", "Finished"),
        ("early_stopped", "macro F1 has not risen for 10 epochs"),
        ("failed", "This run failed after epoch 2"),
        ("running", "This run had not finished when the page was written"),
        ("?", "does not record how the run ended"),
    ],
)
def test_state_is_said_in_words(tmp_path: Path, state: str, words: str) -> None:
    """Each way a run can end is told plainly."""
    run = fabricate_run(tmp_path, people=10, epochs=2, state=state, images=False)
    assert words in Page(write_report(run)).text


def test_damaged_files_are_named(tmp_path: Path) -> None:
    """Half-written files leave their part out, and the page names them."""
    run = fabricate_run(tmp_path, people=10, epochs=3, images=False)
    for name in ("status.json", "metrics.json"):
        (run / name).write_text('{"state": "fin', encoding="utf-8")
    with (run / "history.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"epoch": 4, "tra')
    (run / "predictions.csv").write_text("", encoding="utf-8")
    page = Page(write_report(run))
    for text in ("status.json: ", "metrics.json: ", "history.jsonl: line 4 is not JSON", "predictions.csv: "):
        assert text in page.text


@pytest.mark.parametrize("name", ["status.json", "config.toml"])
def test_almost_empty_run(tmp_path: Path, name: str) -> None:
    """One file alone, even an empty one, is enough for a page."""
    (tmp_path / name).write_text("{}" if name.endswith("json") else "", encoding="utf-8")
    assert tmp_path.name in Page(write_report(tmp_path)).text


def test_values_of_the_wrong_kind_leave_their_part_out(tmp_path: Path) -> None:
    """Null, NaN and lists in the place of objects do not stop the page."""
    run = fabricate_run(tmp_path, people=10, epochs=2, images=False)
    odd = '{"epoch": 3, "train_loss": NaN, "lr": null, "valid": [1], "seconds": "x"}\n'
    with (run / "history.jsonl").open("a", encoding="utf-8") as file:
        file.write(odd)
    (run / "metrics.json").write_text(
        '{"value": null, "joint": [], "targets": {"mask": {"confusion": [[1], 2]}}}'
    )
    (run / "status.json").write_text(
        '{"state": 3, "data": {"labels": [], "joint": null}, "model": [], "best": 1}'
    )
    assert "No score yet" in Page(write_report(run)).text


@pytest.mark.parametrize("most", [100, 99])
def test_many_classes_show_the_confused_pairs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    """With 100 classes no matrix is drawn, but the pairs are; all classes are listed where so many may be, and else the
    20 weakest validated ones."""
    monkeypatch.setattr(scores, "MOST_ROWS", most)
    labels = {"species": [f"종 {k}" for k in range(100)]}
    run = fabricate_run(tmp_path, people=150, epochs=2, labels=labels, images=False)
    page = Page(write_report(run))
    assert not any(name.startswith("Confusion") for name in page.table_names)
    found = json.loads((run / "metrics.json").read_text(encoding="utf-8"))["targets"]["species"]["per_class"]
    weakest = min(row["f1"] for row in found if row["support"])
    table = next(t for t in page.tables if t[0][-1] == "recall")
    assert len(table) == (101 if most == 100 else 21)
    if most < 100:
        assert table[1][3] == f"{weakest:.3f}"
    assert page.source.count('<li style="--v:') > 0


def test_a_matrix_by_its_cells_gives_the_same_page(tmp_path: Path) -> None:
    """Whether metrics.json holds the whole matrix, or its cells as for very many classes."""
    labels = {"species": [f"종 {k}" for k in range(100)]}
    run = fabricate_run(tmp_path, people=150, epochs=2, labels=labels, images=False)
    page = write_report(run).read_bytes()
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    scores = metrics["targets"]["species"]
    cells = [(i, j, n) for i, row in enumerate(scores["confusion"]) for j, n in enumerate(row) if n]
    columns = zip(*cells, strict=True)
    scores["confusion"] = dict(zip(("true", "predicted", "count"), map(list, columns), strict=True))
    (run / "metrics.json").write_text(json.dumps(metrics, ensure_ascii=False), encoding="utf-8")
    assert write_report(run).read_bytes() == page


def test_same_directory_gives_same_bytes(run: Path) -> None:
    """Written twice, the page is the same to the byte: nothing of now is on it."""
    first = write_report(run).read_bytes()
    assert write_report(run).read_bytes() == first


def test_page_is_replaced_in_one_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When writing fails, the earlier page stays and no temporary file is left."""
    run = fabricate_run(tmp_path, people=10, epochs=2, images=False)
    (run / "report.html").write_text("earlier", encoding="utf-8")
    before = sorted(path.name for path in run.iterdir())

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space"):
        write_report(run)
    assert (run / "report.html").read_text(encoding="utf-8") == "earlier"
    assert sorted(path.name for path in run.iterdir()) == before


def test_what_is_no_run_directory_is_refused(tmp_path: Path) -> None:
    """A missing folder and a folder without a run's files each get a message that says which."""
    with pytest.raises(DataError, match="there is no such run directory"):
        write_report(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"neither config\.toml nor status\.json"):
        write_report(tmp_path)
    assert not os.listdir(tmp_path)  # noqa: PTH208 - nothing was written


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, ""),
        (4.26, "4.3 s"),
        (41.2, "41 s"),
        (59.6, "1 min 0 s"),
        (725, "12 min 5 s"),
        (12000, "3 h 20 min"),
    ],
)
def test_duration(seconds: float | None, text: str) -> None:
    """Durations are written as people say them."""
    assert duration(seconds) == text
