"""Targets of every type on the page, against the files it is made from."""

import csv
import json
import re
from itertools import pairwise
from pathlib import Path

import pytest

from classwise.report.page import write_report
from tests.helpers.browsed import Page
from tests.helpers.fabricated import fabricate_run
from tests.helpers.fabricated_kinds import LEVELS, TAGS, fabricate_kinds, read, write
from tests.helpers.tables import read_csv

MOST = 12  # tiles of each of the six targets that have a gallery


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fabricate_kinds(tmp_path_factory.mktemp("kinds"), images=False)


@pytest.fixture(scope="module")
def page(run: Path) -> Page:
    return Page(write_report(run))


def gallery(page: Page, target: str) -> tuple[str, list[tuple[str, str]]]:
    """What is said over a target's mistakes, and of each one the id and the text beneath, but for its file."""
    part = page.source.split('<section id="mistakes">', 1)[1].split("</section>", 1)[0]
    article = next(a for a in part.split("<article>")[1:] if f">{target}</bdi></h3>" in a)
    tiles = re.findall(r'<p class="missing" title="([^"]*)">.*?<dl>(.*?)</dl>', article, re.DOTALL)
    texts = [(id_, " ".join(re.sub(r"<[^>]*>", " ", lines).split())) for id_, lines in tiles]
    plain = [(id_, text.rsplit(" file ", 1)[0]) for id_, text in texts]
    return re.search(r'<p class="lead">(.*?)</p>', article).group(1), plain


def with_interval(scores: dict, key: str, decimals: int = 3) -> str:
    low, high = scores["intervals"][key]
    return f"{scores[key]:.{decimals}f} [{low:.{decimals - 1}f}, {high:.{decimals - 1}f}]"


@pytest.mark.parametrize(
    ("title", "target", "size", "keys"),
    [
        ("Classification", "age", " 3 classes", ["macro_f1", "balanced_accuracy", "accuracy"]),
        ("Ordinal classification", "wear", " 4 levels", ["macro_f1", "mae_levels", "quadratic_kappa"]),
        ("Multilabel classification", "tags", " 7 labels", ["macro_f1", "map", "exact_match"]),
        ("Regression", "years", "", ["mae", "rmse", "r2"]),
        ("Ranking", "taste", "", ["ndcg", "mrr", "map"]),
    ],
)
def test_overview_shows_the_main_scores_with_intervals(
    page: Page, run: Path, title: str, target: str, size: str, keys: list[str]
) -> None:
    """One table a type, three scores wide, each with its interval as in metrics.json."""
    scores = read(run, "metrics.json")["targets"][target]
    table = page.table(f"Overview: {title}")
    (row,) = (row for row in table if row[0].startswith(target))
    assert row == [f"{target}{size.strip()}", *(with_interval(scores, key) for key in keys)]
    assert {len(row) for row in table} == {4}
    assert [("↓" in cell) for cell in table[0][1:]] == [key in ("mae_levels", "mae", "rmse") for key in keys]


def test_further_scores_hold_the_rest(page: Page, run: Path) -> None:
    """What the overview leaves out stands in a folded table, a column a target; what a target lacks is a dash."""
    metrics = read(run, "metrics.json")
    table = page.table("Further scores: Classification")
    assert table[0][1:] == ["mask × gender × age", "mask", "gender", "age"]
    rows = {row[0]: row[1:] for row in table[1:]}
    assert {
        "MCC",
        "Cohen’s kappa",
        "log loss ↓",
        "calibration error ↓",
        "macro precision",
        "weighted recall",
    } <= rows.keys()
    assert rows["MCC"] == [
        with_interval(s, "mcc") for s in (metrics["joint"], *list(metrics["targets"].values())[:3])
    ]
    assert rows["top-3 accuracy"][1:] == ["–", "–", "–"]
    assert "macro F1" not in rows
    assert page.elements["details"] > 3


def test_selected_score_is_in_the_overview(tmp_path: Path) -> None:
    """A run selected by a score that the overview does not usually have shows it first; unknown scores are listed."""
    run = fabricate_kinds(tmp_path, metric="mask.mcc", people=20, epochs=2, images=False)
    metrics = read(run, "metrics.json")
    metrics["targets"]["wear"]["made_up"] = 0.125
    write(run, "metrics.json", metrics)
    page = Page(write_report(run))
    assert page.table("Overview: Classification")[0][1:] == ["MCC", "macro F1", "balanced accuracy"]
    assert page.table("Overview: Ordinal classification")[0][1:] == [
        "macro F1",
        "MAE in levels ↓",
        "quadratic kappa",
    ]
    assert ["made_up", "0.125"] in page.table("Further scores: Ordinal classification")


def test_levels_stay_in_their_order(page: Page, run: Path) -> None:
    """An ordinal target's table and matrix keep the levels' order; counts are the file's."""
    scores = read(run, "metrics.json")["targets"]["wear"]
    assert [row[0] for row in page.table("Scores of each level of wear")[1:]] == LEVELS
    assert page.confusion("wear") == scores["confusion"]


def test_label_table_equals_metrics_json(page: Page, run: Path) -> None:
    """Each label's support, F1, average precision, precision and recall, the rarest label first."""
    scores = read(run, "metrics.json")["targets"]["tags"]
    table = page.table("Scores of each label of tags")
    assert table[0] == ["label", "training", "valid.", "F1", "AP", "precision", "recall"]
    wanted = {
        row["label"]: [
            str(row["support"]),
            *(f"{row[key]:.3f}" for key in ("f1", "ap", "precision", "recall")),
        ]
        for row in scores["per_class"]
    }
    assert {row[0]: [row[2].removeprefix("† "), *row[3:]] for row in table[1:]} == wanted
    assert [row[0] for row in table[1:]] == TAGS[::-1]  # made rarer one by one
    assert "Confusion matrix of tags" not in page.table_names


def many_labels(tmp_path: Path, count: int) -> Page:
    """A page with so many labels, the first three of which occur nowhere; the later, the rarer and the better."""
    run = tmp_path / "run"
    run.mkdir()
    each = {"precision": 0.5, "recall": 0.5, "ap": None}
    rows = [
        {"label": f"l{k}", "f1": k / count, "support": 0 if k < 3 else 20 + count - k, **each}
        for k in range(count)
    ]
    scores = {
        "type": "multilabel",
        "labels": [row["label"] for row in rows],
        "macro_f1": 0.5,
        "per_class": rows,
    }
    write(run, "metrics.json", {"targets": {"tags": scores}, "metric": "macro_f1", "value": 0.5})
    write(run, "status.json", {})
    return Page(write_report(run))


def test_many_labels_are_all_listed_the_rarest_first(tmp_path: Path) -> None:
    """In a box that scrolls, also by keys."""
    page = many_labels(tmp_path, 60)
    table = page.table("Scores of each label of tags")
    assert [row[0] for row in table[1:]] == ["l0", "l1", "l2", *(f"l{k}" for k in range(59, 2, -1))]
    assert 'class="scroll tall" tabindex="0"' in page.source


def test_very_many_labels_show_the_weakest(tmp_path: Path) -> None:
    """Of 400 labels the 20 of lowest F1 that occur are shown; those that occur nowhere are counted."""
    page = many_labels(tmp_path, 400)
    table = page.table("Scores of each label of tags")
    assert [row[0] for row in table[1:]] == [f"l{k}" for k in range(3, 23)]
    assert table[1][1:] == ["417", "0.007", "–", "0.500", "0.500"]
    assert "The 20 labels with the lowest F1 out of 400" in page.text
    assert "3 labels occur in no validation row." in page.text


def test_regression_is_drawn_against_the_truth(page: Page, run: Path) -> None:
    """A dot for every validation row whose number is known, and the scores in the user's unit."""
    known = [row for row in read_csv(run / "predictions.csv") if row["years_true"]]
    (cloud,) = re.findall(r'aria-label="Predicted against true years">.*?</svg>', page.source, re.DOTALL)
    assert cloud.count("<circle") == len(known)
    scores = read(run, "metrics.json")["targets"]["years"]
    for key in ("mae", "mse", "rmse"):
        assert f"<dd>{scores[key]:.{2 if scores[key] >= 10 else 3}f}" in page.source
    assert "One dot per validation row." in page.text


def test_many_dots_are_thinned_evenly(tmp_path: Path) -> None:
    """Of 5,000 rows 2,000 are drawn, the first and the last among them, and the page says so."""
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.toml").write_text(
        '[targets.height]\ncolumn = "height"\ntype = "regression"\n', encoding="utf-8"
    )
    metrics = {
        "targets": {"height": {"type": "regression", "mae": 1.5, "samples": 5000}},
        "metric": "mae",
        "value": 1.5,
    }
    write(run, "metrics.json", metrics)
    lines = ["id,height,height_true", *(f"{k},{k + 1.5},{k}" for k in range(5000))]
    (run / "predictions.csv").write_text("\n".join(lines), encoding="utf-8")
    page = Page(write_report(run))
    dots = [float(x) for x in re.findall(r'<circle cx="([^"]*)"', page.source)]
    assert len(dots) == 2000
    steps = [b - a for a, b in pairwise(dots)]
    assert max(steps) - min(steps) <= 0.21  # pixels, each rounded to a tenth
    assert "2,000 of 5,000 validation rows, evenly spaced." in page.text


def test_ranking_shows_its_numbers_and_queries(page: Page, run: Path) -> None:
    """All ranking scores and both counts of queries; a ranking has no gallery of mistakes."""
    scores = read(run, "metrics.json")["targets"]["taste"]
    metadata = dict(re.findall(r"<dt>([^<]*)</dt><dd>([^<]*)", page.source))
    shown = {"NDCG@5": "ndcg_at_5", "NDCG@10": "ndcg_at_10", "MRR": "mrr", "MAP": "map", "NDCG": "ndcg"}
    assert {name: metadata[name].strip() for name in shown} == {
        n: f"{scores[key]:.3f}" for n, key in shown.items()
    }
    assert metadata["queries"] == str(scores["queries"])
    assert metadata["queries without relevant"] == str(scores["queries_without_relevant"])
    with pytest.raises(StopIteration):
        gallery(page, "taste")


def test_ordinal_mistakes_are_the_furthest_off(page: Page, run: Path) -> None:
    """Of each level, the rarest first: by the distance in levels, then by the probability of the level taken."""
    wrong = [
        row
        for row in read_csv(run / "predictions.csv")
        if row["wear_true"] and row["wear"] != row["wear_true"]
    ]

    def order(row: dict[str, str]) -> tuple[int, float]:
        distance = abs(LEVELS.index(row["wear"]) - LEVELS.index(row["wear_true"]))
        return -distance, -float(row[f"wear_p_{row['wear']}"])

    lead, tiles = gallery(page, "wear")
    train = {row["label"]: row["train"] for row in read(run, "status.json")["data"]["labels"]["wear"]}
    levels = sorted({row["wear_true"] for row in wrong}, key=lambda level: (train[level], level))
    each = MOST // len(levels)
    ordered = sorted(wrong, key=order)
    wanted = [row["id"] for level in levels for row in [r for r in ordered if r["wear_true"] == level][:each]]
    assert [id_ for id_, _ in tiles] == wanted
    labeled = sum(bool(row["wear_true"]) for row in read_csv(run / "predictions.csv"))
    said = "predictions are wrong; shown are the ones that are furthest off of each level."
    assert lead == f"{len(wrong)} of {labeled} {said}"


def test_regression_mistakes_are_the_largest_errors(page: Page, run: Path) -> None:
    """Truth, prediction and signed error of the rows furthest from the truth, either way."""
    rows = [
        (r["id"], float(r["years_true"]), float(r["years"]))
        for r in read_csv(run / "predictions.csv")
        if r["years_true"]
    ]
    rows.sort(key=lambda row: -abs(row[2] - row[1]))
    wanted = [
        (id_, f"true {t:.4g} predicted → {p:.4g} {'+' if p > t else '−'}{abs(p - t):.4g}")
        for id_, t, p in rows[:MOST]
    ]
    lead, tiles = gallery(page, "years")
    assert tiles == wanted
    assert lead == f"The {MOST} largest errors among {len(rows)} rows."


def test_multilabel_mistakes_name_the_labels(tmp_path: Path) -> None:
    """Under the rarest wrong label, missed ones and false ones. A separator alone is the empty set; unknown rows and
    right ones are not shown."""
    run = fabricate_kinds(tmp_path, people=10, epochs=2, images=False)
    rows = read_csv(run / "predictions.csv")
    cells = [("hat|안경", "hat"), ("|", "|"), ("hat", ""), ("|", "beard|outdoor|scarf"), ("hat|beard", "|")]
    for k, row in enumerate(rows):
        row["tags"], row["tags_true"] = cells[k] if k < len(cells) else ("hat|scarf", "scarf|hat")
    with (run / "predictions.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    lead, tiles = gallery(Page(write_report(run)), "tags")
    assert tiles == [
        (rows[3]["id"], "missed − beard, outdoor, scarf"),
        (rows[4]["id"], "false + hat, beard"),
        (rows[0]["id"], "false + 안경"),
    ]
    assert lead.startswith(
        f"3 of {len(rows) - 1} predictions are wrong. Each is under its rarest wrong label; −"
    )


def test_another_separator_is_the_configs(tmp_path: Path) -> None:
    """Labels that hold a bar are told apart where the config names another separator."""
    run = tmp_path / "run"
    run.mkdir()
    text = '[targets.tags]\ncolumn = "tags"\ntype = "multilabel"\nseparator = "; "\n'
    (run / "config.toml").write_text(text, encoding="utf-8")
    (run / "predictions.csv").write_text("id,tags,tags_true\na,x|y; z,x|y; w\n", encoding="utf-8")
    _, tiles = gallery(Page(write_report(run)), "tags")
    assert tiles == [("a", "missed − w false + z")]


def test_data_section_tells_every_type(page: Page, run: Path) -> None:
    """Label counts, the spread of numbers, queries, and rows without an answer where there are any."""
    data = read(run, "status.json")["data"]
    table = next(t for t in page.tables if t[0][0] == "label" and t[0][-1] == "share")
    assert [row[:3] for row in table[1:]] == [
        [row["label"], str(row["train"]), str(row["valid"])]
        for row in sorted(data["labels"]["tags"], key=lambda row: row["train"])
    ]
    spread = next(t for t in page.tables if t[0][-1] == "max")
    assert spread[1] == ["training", "1,008", "16", "42.72", "70"]
    assert "196 training queries and 49 validation queries." in page.text
    masked = data["masked"]["years"]
    assert f"{masked['train']} training and {masked['valid']} validation rows have no label" in page.text
    assert page.text.count("have no label") == 3  # not of taste, where both counts are 0


def test_frozen_epochs_and_learned_weights_are_told(page: Page, tmp_path: Path) -> None:
    """Both only where the history has them: a note under the charts, and a chart with a line a target."""
    assert "The backbone was frozen in epochs 1 to 2: only the heads were trained." in page.text
    (chart,) = re.findall(r'aria-label="Learned target weights per epoch">.*?</svg>', page.source, re.DOTALL)
    assert chart.count("<polyline") == 5
    plain = Page(write_report(fabricate_run(tmp_path, people=10, epochs=3, images=False)))
    assert "backbone was frozen" not in plain.text
    assert "Learned target weights" not in plain.source


def test_scattered_frozen_epochs(tmp_path: Path) -> None:
    """Runs of epochs are joined, single ones stand alone."""
    run = fabricate_run(tmp_path, people=10, epochs=6, images=False)
    lines = [json.loads(line) for line in (run / "history.jsonl").read_text(encoding="utf-8").splitlines()]
    text = "".join(json.dumps(line | {"frozen": line["epoch"] in (1, 2, 3, 5)}) + "\n" for line in lines)
    (run / "history.jsonl").write_text(text, encoding="utf-8")
    assert "frozen in epochs 1 to 3, 5:" in Page(write_report(run)).text


def test_best_mark_of_an_error_is_at_its_lowest(tmp_path: Path) -> None:
    """Selected by an error, the ring is drawn at the lowest point, with its value and epoch."""
    run = fabricate_kinds(tmp_path, metric="years.mae", people=20, epochs=10, images=False)
    metrics, page = read(run, "metrics.json"), Page(write_report(run))
    (chart,) = re.findall(r'aria-label="MAE per epoch">.*?</svg>', page.source, re.DOTALL)
    (points,) = re.findall(r'<polyline class="s0" points="([^"]*)"', chart)
    lowest = max(float(pair.split(",")[1]) for pair in points.split())  # downwards is larger in SVG
    (ring,) = re.findall(r'<circle class="best" cx="[^"]*" cy="([^"]*)"', chart)
    assert float(ring) == lowest
    assert f"{metrics['value']:.3f} in epoch {metrics['epoch']}" in chart
    assert "lower is better" in page.text


def test_hostile_names_of_every_type_stay_text(tmp_path: Path) -> None:
    """Markup in labels, levels and targets of every type comes out as itself, in tables, figures and galleries."""
    run = fabricate_kinds(tmp_path, people=40, epochs=3, images=False)
    hostile = {
        "tattoo": "<script>1</script>",
        "worn": "<img src=x onerror=2>",
        "years": "<b>y</b>",
        "taste": "<u>t",
    }
    for name in ("metrics.json", "status.json", "predictions.csv", "history.jsonl"):
        text = (run / name).read_text(encoding="utf-8")
        for plain, markup in hostile.items():
            text = text.replace(plain, markup)
        (run / name).write_text(text, encoding="utf-8")
    (run / "config.toml").unlink()
    page = Page(write_report(run))
    assert not page.elements.keys() & {"img", "b", "u"}
    assert page.elements["script"] == 1  # the page's own
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    assert all(markup in page.text for markup in hostile.values())


def test_odd_values_leave_their_part_out(tmp_path: Path) -> None:
    """Nulls, lists and words where numbers belong, and columns that hold no numbers, do not stop the page."""
    run = fabricate_kinds(tmp_path, people=10, epochs=2, images=False)
    odd = {
        "years": {"type": "regression", "mae": None, "rmse": 2.0, "intervals": {"rmse": [1], "mae": [0, 1]}},
        "tags": {"type": "multilabel", "per_class": [{"label": "a", "ap": None}, 3], "intervals": []},
        "taste": {"type": "ranking", "queries": "x"},
        "wear": {"type": "ordinal", "labels": None},
        "mask": {"type": "mystery", "macro_f1": 0.5},
    }
    write(run, "metrics.json", {"metric": "years.rmse", "value": 2.0, "targets": odd})
    text = (run / "predictions.csv").read_text(encoding="utf-8")
    (run / "predictions.csv").write_text(re.sub(r"\d\.\d", "x", text), encoding="utf-8")
    status = read(run, "status.json")
    status["baselines"] = {"metric": None, "most_frequent": "x", "linear_probe": None, "probe_on": None}
    status["data"] |= {
        "values": {"years": [1]},
        "queries": {"taste": None},
        "masked": 3,
        "labels": {"tags": 1},
    }
    write(run, "status.json", status)
    with (run / "history.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"epoch": null, "frozen": true, "target_weights": [1]}\n')
    page = Page(write_report(run))
    assert '<p class="value">2.000</p>' in page.source
    assert "Predicted against true" not in page.source
    assert page.table("Overview: Regression")[1] == ["years", "2.000"]


def test_same_directory_gives_same_bytes(run: Path) -> None:
    """Written twice, the page with every type of target is the same to the byte."""
    first = write_report(run).read_bytes()
    assert write_report(run).read_bytes() == first


def test_number_with_edges_shows_spread_and_classes(tmp_path: Path) -> None:
    """A number that is cut into classes for the joint class has both tables in the data section."""
    run = fabricate_kinds(tmp_path, people=10, epochs=1, images=False)
    status = read(run, "status.json")
    status["data"]["labels"]["years"] = [
        {"label": "<30", "train": 31, "valid": 7},
        {"label": ">=30", "train": 25, "valid": 7},
    ]
    write(run, "status.json", status)
    page = Page(write_report(run))
    part = page.source.split('<section id="data">')[1].split(">years</bdi></h3>")[1].split("</figure>")[0]
    assert "Imbalance in training, largest to smallest class: 1.2 : 1." in part
    assert ">max</th>" in part
