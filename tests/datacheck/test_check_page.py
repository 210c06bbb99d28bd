"""The page of a check against the findings it is made from."""

import base64
import hashlib
import io
import json
import random
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from classwise.datacheck.finding import INFO, KINDS, SEVERE, WARNING, Finding
from classwise.datacheck.page import (
    LISTED,
    MOST_CLASSES,
    MOST_MEMBERS,
    ROWS_A_BLOCK,
    PageRow,
    json_block,
    write_page,
)
from classwise.datacheck.page_images import MANY, OVER_BUDGET, SMALLER_SIDE, page_images
from classwise.datacheck.page_words import MEANINGS
from classwise.datacheck.written import Checked
from classwise.report.thumbnails import LONGEST_SIDE
from tests.helpers.browsed import Page

CHECKED = Checked(
    source="tiles",
    rows={"train": 300, "valid": 20},
    done=["copies: 320 images"],
    not_done=["label errors: there are no out-of-fold probabilities (--run)"],
    versions={"classwise": "1.2.3"},
)
HOSTILE = [
    "<script>alert(1)</script>",
    "</script><script>alert(2)</script>",
    '"><img src=x onerror=alert(3)>',
    "<!--<script>",
    "{{ 7 * 7 }}{% raw %}",
    "line\u2028separator\u2029paragraph",
    "]]>&amp;&lt;",
    "שלום 한국어 'quote\"",
    "no UTF-8: \udce9",
    "__proto__",
]


def draw(folder: Path, count: int, size: int = 24) -> dict[str, PageRow]:
    """Rows with images of noise, half of them in each split."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    rows = {}
    for number in range(count):
        id_ = f"{number}.png"
        Image.fromarray(rng.integers(0, 256, (size, size, 3), dtype=np.uint8)).save(folder / id_)
        split = "train" if number % 2 else "valid"
        rows[id_] = PageRow(id=id_, path=folder / id_, labels={"shape": f"s{number % 3}"}, split=split)
    return rows


def data_of(page: Page, name: str = "data") -> dict | list:
    """What a JSON block of the page holds."""
    found = re.search(rf'<script type="application/json" id="{name}">(.*?)</script>', page.source, re.DOTALL)
    return json.loads(found[1])


def images_of(page: Page) -> list[str]:
    """All images of the page, in the order of its rows."""
    names = re.findall(r'id="(images-\d+)"', page.source)
    return [uri for name in names for uri in data_of(page, name)]


def pairs(count: int) -> list[Finding]:
    return [
        Finding("near-copy", WARNING, f"{2 * n}.png", f"{2 * n + 1}.png", 1.0 - n / 1000, f"pair {n}")
        for n in range(count)
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("images")


@pytest.fixture(scope="module")
def rows(folder: Path) -> dict[str, PageRow]:
    return draw(folder, 320)


def test_every_finding_is_on_the_page(tmp_path: Path, folder: Path, rows: dict[str, PageRow]) -> None:
    """The worst first, with its rows, their labels and splits, its advice and its details."""
    severe = Finding(
        "label-error", SEVERE, "4.png", "", 0.9, "Look at it.", {"likely_label": "s2", "chance": 0.25}
    )
    write_page([*pairs(3), severe], rows, CHECKED, tmp_path / "check.html", [folder])
    data = data_of(Page(tmp_path / "check.html"))
    first, second = data["findings"][:2]
    assert data["kinds"][first["kind"]] == KINDS["label-error"]
    assert data["severities"][first["severity"]] == ["severe", "Severe"]
    assert first["facts"] == [["likely label", "s2"], ["chance", "0.25"]]
    assert [data["rows"][row]["id"] for row in second["rows"]] == ["0.png", "1.png"]
    assert second["advice"] == "pair 0"
    assert [data["splits"][data["rows"][row]["split"]] for row in second["rows"]] == ["valid", "train"]
    shown_class = data["classes"][data["rows"][second["rows"][1]]["labels"][0]]
    assert (shown_class["target"], shown_class["label"]) == ("shape", "s1")


def test_the_head_counts_and_explains(tmp_path: Path, folder: Path, rows: dict[str, PageRow]) -> None:
    """Each kind that was found has a row with its meaning and its counts; what was not checked has its reason."""
    findings = [
        *pairs(3),
        Finding("dark", INFO, "0.png", "", 1.0, ""),
        Finding("exact-copy", SEVERE, "0.png", "1.png", 2, ""),
    ]
    write_page(findings, rows, CHECKED, tmp_path / "check.html", [folder])
    page = Page(tmp_path / "check.html")
    table = page.table("Findings by kind and severity")
    assert [
        row[0].startswith(title) for row, title in zip(table[1:], ["Exact", "Near", "Dark"], strict=True)
    ] == [True] * 3
    assert [row[1:] for row in table[1:]] == [["1", "–", "–"], ["–", "3", "–"], ["–", "–", "1"]]
    assert "1 finding is severe: do not trust a score on this data before it is resolved." in page.text
    assert "1 check was not made" in page.text
    assert "there are no out-of-fold probabilities (--run)" in page.text


def test_every_kind_has_a_meaning() -> None:
    """In the order of kinds."""
    assert list(MEANINGS) == list(KINDS)


@pytest.mark.parametrize(
    ("findings", "verdict"),
    [
        ([], "Nothing was found in what was checked."),
        ([Finding("dark", INFO, "0.png", "", 1.0, "")], "Nothing severe and no warnings."),
        (pairs(1), "Nothing severe. 1 warning is worth a look."),
        (pairs(2), "Nothing severe. 2 warnings are worth a look."),
    ],
)
def test_the_verdict_is_in_words(
    tmp_path: Path, folder: Path, rows: dict[str, PageRow], findings: list[Finding], verdict: str
) -> None:
    """A page without findings has neither images nor a script."""
    write_page(findings, rows, CHECKED, tmp_path / "check.html", [folder])
    page = Page(tmp_path / "check.html")
    assert verdict in page.text
    assert ("script" in page.elements) == bool(findings)


def test_an_image_is_on_the_page_once(tmp_path: Path, folder: Path, rows: dict[str, PageRow]) -> None:
    """However many findings name its row; rows without findings have none. In blocks."""
    findings = [*pairs(150), *(Finding("dark", INFO, f"{n}.png", "", 1.0, "") for n in range(150))]
    write_page(findings, rows, CHECKED, tmp_path / "check.html", [folder])
    page = Page(tmp_path / "check.html")
    assert len(images_of(page)) == len(set(images_of(page))) == 300
    assert len(data_of(page, "images-0")) == ROWS_A_BLOCK
    place = next(place for place, row in enumerate(data_of(page)["rows"]) if row["id"] == "7.png")
    decoded = Image.open(io.BytesIO(base64.b64decode(images_of(page)[place].split(",")[1])))
    assert np.array_equal(np.asarray(decoded), np.asarray(Image.open(folder / "7.png")))


def test_beyond_the_budget_the_least_severe_have_no_image(
    tmp_path: Path, folder: Path, rows: dict[str, PageRow]
) -> None:
    """And the page says how many that are, and why."""
    findings = [Finding("dark", INFO, "0.png", "", 9.0, ""), *pairs(20)[1:]]
    left_out = write_page(findings, rows, CHECKED, tmp_path / "check.html", [folder], budget=40_000)
    page = Page(tmp_path / "check.html")
    images = images_of(page)
    assert 0 < left_out < 39
    assert images[-1] == ""
    assert all(images[: 39 - left_out])
    assert sum(map(len, images)) <= 40_000
    assert data_of(page)["rows"][-1] == {"id": "0.png", "split": 0, "labels": [0], "why": OVER_BUDGET}
    assert (
        f"{left_out} of 39 images, those of the least severe findings, are left out: all images of a page share 0.04 MB"
        in page.text
    )


def test_many_images_are_smaller(tmp_path: Path) -> None:
    """So that more of them fit into the budget."""
    Image.fromarray(np.zeros((300, 400, 3), np.uint8)).save(tmp_path / "large.png")
    few = page_images([tmp_path / "large.png"], None).thumbnails[0]
    many = page_images([tmp_path / "large.png"] * (MANY + 1), None, budget=3_000).thumbnails[0]
    sizes = [Image.open(io.BytesIO(base64.b64decode(image.uri.split(",")[1]))).size for image in (few, many)]
    assert sizes == [(LONGEST_SIDE, LONGEST_SIDE * 3 // 4), (SMALLER_SIDE, SMALLER_SIDE * 3 // 4)]


def test_a_group_of_copies_is_one_card(tmp_path: Path, folder: Path, rows: dict[str, PageRow]) -> None:
    """With up to MOST_MEMBERS images; the ids of the others are there to be searched for."""
    members = list(rows)[:100]
    group = Finding("exact-copy", WARNING, members[0], members[1], 100.0, "100 copies", {"members": members})
    write_page([group], rows, CHECKED, tmp_path / "check.html", [folder])
    page = Page(tmp_path / "check.html")
    (finding,) = data_of(page)["findings"]
    assert [data_of(page)["rows"][row]["id"] for row in finding["rows"]] == members[:MOST_MEMBERS]
    assert finding["others"] == members[MOST_MEMBERS:]
    assert finding["not_shown"] == 100 - MOST_MEMBERS
    assert len(images_of(page)) == MOST_MEMBERS
    assert finding["facts"] == []


def test_the_pair_to_look_at_comes_first(tmp_path: Path, folder: Path, rows: dict[str, PageRow]) -> None:
    """Of a group of which the finding lists some members only; the page counts all."""
    members = list(rows)[:10]
    group = Finding("near-copy", SEVERE, "7.png", "90.png", 1.0, "", {"members": members, "count": 1234})
    write_page([group], rows, CHECKED, tmp_path / "check.html", [folder])
    data = data_of(Page(tmp_path / "check.html"))
    (finding,) = data["findings"]
    assert [data["rows"][row]["id"] for row in finding["rows"][:3]] == ["7.png", "90.png", "0.png"]
    assert finding["not_shown"] == 1234 - len(finding["rows"])
    assert finding["facts"] == []


def test_images_that_cannot_be_shown_say_why(tmp_path: Path, folder: Path) -> None:
    """Broken files, files outside of the folders, also through links, and rows without a file or unknown ones."""
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    (tmp_path / "link.png").symlink_to(folder / "0.png")
    draw(folder, 1)
    paths = {
        "broken": tmp_path / "broken.png",
        "outside": folder / "0.png",
        "link": tmp_path / "link.png",
        "none": None,
    }
    known = {name: PageRow(id=name, path=path, labels={}, split="") for name, path in paths.items()}
    findings = [Finding("unreadable", WARNING, name, "", None, "") for name in [*paths, "unknown"]]
    write_page(findings, known, CHECKED, tmp_path / "check.html", [tmp_path])
    page = Page(tmp_path / "check.html")
    assert images_of(page) == [""] * 5
    assert all(row["why"] for row in data_of(page)["rows"])


def test_a_finding_of_the_whole_data_has_no_image(tmp_path: Path) -> None:
    """Such as a shortcut; its details are shown, lists of values among them, up to a dozen."""
    details = {
        "score": 0.75,
        "beats_chance": True,
        "classes": list("abcdefghijklmno"),
        "nested": {"not": "shown"},
    }
    write_page(
        [Finding("shortcut", WARNING, "", "", 0.5, "size", details)], {}, CHECKED, tmp_path / "c.html", None
    )
    page = Page(tmp_path / "c.html")
    (finding,) = data_of(page)["findings"]
    assert finding["rows"] == []
    assert finding["facts"] == [
        ["score", "0.75"],
        ["beats chance", "yes"],
        ["classes", "a, b, c, d, e, f, g, h, i, j, k, l and 3 more"],
    ]
    assert not images_of(page)


def test_numbers_are_not_offered_as_classes(tmp_path: Path) -> None:
    """A target with a thousand labels would make a list that nobody can choose from."""
    count = MOST_CLASSES + 1
    known = {
        str(n): PageRow(str(n), None, {"age": str(n), "sex": "fm"[n % 2]}, "train") for n in range(count)
    }
    findings = [Finding("outlier", INFO, id_, "", 1.0, "") for id_ in known]
    write_page(findings, known, CHECKED, tmp_path / "check.html", None)
    offered = [
        entry["target"] for entry in data_of(Page(tmp_path / "check.html"))["classes"] if entry["offered"]
    ]
    assert offered == ["sex", "sex"]


def test_without_scripts_the_first_findings_are_a_list(
    tmp_path: Path, folder: Path, rows: dict[str, PageRow]
) -> None:
    """And the page says what is missing."""
    write_page(pairs(60), rows, CHECKED, tmp_path / "check.html", [folder])
    page = Page(tmp_path / "check.html")
    plain = re.search(r"<noscript>(.*?)</noscript>", page.source, re.DOTALL)[1]
    assert plain.count("<li>") == LISTED
    assert "These are the first 50 of 60 findings; check.csv has all." in plain
    assert "<bdi>0.png, 1.png</bdi>" in plain


def test_the_page_is_self_contained(tmp_path: Path, folder: Path, rows: dict[str, PageRow]) -> None:
    """It asks for nothing, and its policy allows nothing but its own script, which it names by its digest."""
    write_page(pairs(3), rows, CHECKED, tmp_path / "check.html", [folder])
    page = Page(tmp_path / "check.html")
    assert not page.elements.keys() & {"iframe", "object", "embed", "form", "base"}
    assert all(value.startswith(("data:", "#")) for name in ("src", "href") for value in page.values(name))
    assert not re.search(r"url\(|@import|https?:", page.source)
    scripts = re.findall(r"<script>(.*?)</script>", page.source, re.DOTALL)
    assert len(scripts) == 1
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    policy = next(value for value in page.values("content") if "default-src" in value)
    assert policy == (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline';"
        f" script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )


def test_the_script_makes_no_markup_out_of_data(
    tmp_path: Path, folder: Path, rows: dict[str, PageRow]
) -> None:
    """No way to do so occurs in it, and none to ask for anything."""
    write_page(pairs(1), rows, CHECKED, tmp_path / "check.html", [folder])
    script = re.search(r"<script>(.*?)</script>", Page(tmp_path / "check.html").source, re.DOTALL)[1]
    for forbidden in (
        "innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function(", "setTimeout(\"",
        "fetch(", "XMLHttpRequest", "import", "href", "location", "srcdoc", "createContextualFragment", "DOMParser",
        "setHTML", "parseHTML",
    ):  # fmt: skip
        assert forbidden not in script


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    """Markup, quotes, template syntax and line separators in every text come out as themselves."""
    known = {
        text: PageRow(id=text, path=None, labels={text: other}, split=other)
        for text, other in zip(HOSTILE, reversed(HOSTILE), strict=True)
    }
    findings = [
        Finding("near-copy", WARNING, text, HOSTILE[0], 1.0, text, {text: text, "list": [text]})
        for text in HOSTILE
    ]
    checked = Checked(
        source=HOSTILE[1],
        rows={HOSTILE[2]: 1},
        done=HOSTILE,
        not_done=HOSTILE,
        versions={HOSTILE[0]: HOSTILE[1]},
    )
    write_page(findings, known, checked, tmp_path / "check.html", None)
    page = Page(tmp_path / "check.html")
    assert page.elements["script"] == 3  # the findings, the images, the program
    assert page.elements["img"] == 0
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    assert "\u2028" not in "".join(re.findall(r"<script.*?</script>", page.source, re.DOTALL))
    data = data_of(page)
    assert {row["id"] for row in data["rows"]} == set(HOSTILE)
    assert {entry["label"] for entry in data["classes"]} == set(HOSTILE)
    for text in HOSTILE:
        assert text.replace("\udce9", "?") in page.text


def test_json_cannot_end_its_element() -> None:
    """Nor begin a comment or another element in it; it is the same value again."""
    text = str(json_block(HOSTILE))
    assert not set(text) & set("<>&\u2028\u2029")
    assert json.loads(text) == HOSTILE


def test_the_same_findings_give_the_same_bytes(
    tmp_path: Path, folder: Path, rows: dict[str, PageRow]
) -> None:
    """In whatever order they come."""
    findings = pairs(30)
    shuffled = list(findings)
    random.Random(0).shuffle(shuffled)
    write_page(findings, rows, CHECKED, tmp_path / "a.html", [folder])
    write_page(shuffled, rows, CHECKED, tmp_path / "b.html", [folder])
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_ten_thousand_findings_fit(tmp_path: Path) -> None:
    """Without images they are a few megabytes."""
    known = {
        f"folder/{n}.png": PageRow(f"folder/{n}.png", None, {"shape": "round"}, "train")
        for n in range(10_000)
    }
    findings = [Finding("outlier", INFO, id_, "", n / 1e4, "Look at it.") for n, id_ in enumerate(known)]
    write_page(findings, known, CHECKED, tmp_path / "check.html", None)
    assert len(data_of(Page(tmp_path / "check.html"))["findings"]) == 10_000
    assert (tmp_path / "check.html").stat().st_size < 5_000_000
