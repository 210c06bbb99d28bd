"""`check.html`: one self-contained file with what a check found, to look through and to filter.

The page loads nothing. Its one script is named by its SHA-256 in the page's Content-Security-Policy, so that no other
runs. Ids, labels and file names are untrusted input: Jinja2 escapes them in the page's own text, the script puts them
there as text only, and in the JSON in between no character can end its element. The same input gives the same bytes.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Template
from markupsafe import Markup

from classwise.data.image_file import Folders
from classwise.data.images import MAX_PIXELS
from classwise.data.pixel_format import RGB, PixelFormat
from classwise.datacheck.finding import INFO, KINDS, SEVERE, SEVERITIES, WARNING, Finding
from classwise.datacheck.page_images import BUDGET, PageImages, page_images
from classwise.datacheck.page_words import MEANINGS, SEVERITY_MEANINGS, SEVERITY_TITLES
from classwise.datacheck.written import Checked, counts, encodable, sorted_findings
from classwise.files import write_bytes
from classwise.report.environment import InlineScript, inline_script, page_environment
from classwise.report.names import short_number
from classwise.report.thumbnails import Thumbnail

MOST_MEMBERS = 48
"""Images of a group of copies on its card."""
LISTED = 50
"""Findings that the page lists where scripts are off."""
MOST_CLASSES = 2_000
"""Labels of a target that the page offers as a filter; numbers have more, and nobody chooses among them."""
ROWS_A_BLOCK = 256
"""Images that the script decodes at once."""
MOST_IN_A_FACT = 12


@dataclass(frozen=True)
class PageRow:
    """A row of the data, as the page shows it. `path`: its file, if it has one. `labels`: by target. `split`: the name
    of its split or of the set that it is from, or empty."""

    id: str
    path: Path | None
    labels: Mapping[str, str]
    split: str


def write_page(
    findings: Sequence[Finding],
    rows: Mapping[str, PageRow],
    checked: Checked,
    path: Path,
    folders: Folders,
    pixels: PixelFormat = RGB,
    max_pixels: int = MAX_PIXELS,
    budget: int = BUDGET,
) -> int:
    """Write the page of `findings` to `path`, in one step. Returns how many images there was no room for.

    `rows`: what is known of the rows that findings name, by their ids (`id`, `partner`, and `members` in the details:
    the ids of a group of copies, which is shown as one). `folders`, `pixels`, `max_pixels` and `budget` as in
    `page_images`."""
    ordered = sorted_findings(findings)
    shown = _shown_rows(ordered, rows)
    images = page_images(
        [row.path for row in shown.values()],
        folders,
        pixels=pixels,
        max_pixels=max_pixels,
        budget=budget,
    )
    # A file name that is not UTF-8 is read as lone surrogates, which cannot be encoded.
    write_bytes(path, encodable(render(ordered, shown, images, checked)).encode())
    return images.left_out


def render(
    findings: Sequence[Finding], rows: Mapping[str, PageRow], images: PageImages, checked: Checked
) -> str:
    """The page as text. `rows`: those that are shown, and `images`: theirs, in the same order."""
    by_severity = Counter(finding.severity for finding in findings)
    return _template().render(
        checked=checked,
        totals=[(name, SEVERITY_TITLES[name], by_severity[name]) for name in SEVERITIES],
        severities=[(name, SEVERITY_TITLES[name], SEVERITY_MEANINGS[name]) for name in SEVERITIES],
        verdict=_verdict(by_severity),
        kinds=[(KINDS[kind], MEANINGS[kind], numbers) for kind, numbers in counts(findings).items()],
        found=len(findings),
        listed=[_line(finding) for finding in findings[:LISTED]],
        left_out=images.left_out,
        images=len(images.thumbnails),
        budget=f"{images.budget / 1e6:.3g} MB",
        script=_script(),
        data=json_block(_data(findings, rows, images.thumbnails)),
        blocks=_image_blocks(images.thumbnails),
    )


def json_block(value: Any) -> Markup:
    """A value as JSON that may stand in a script element: no character of it can end the element, begin a comment, or
    be taken for a line's end."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


@cache
def _template() -> Template:
    environment = page_environment(Path(__file__).parent)
    environment.filters |= {"thousands": lambda n: f"{n:,}"}
    return environment.get_template("page.html.j2")


@cache
def _script() -> InlineScript:
    return inline_script(Path(__file__).parent / "page.js")


def _verdict(by_severity: Mapping[str, int]) -> str:
    severe, warnings = by_severity[SEVERE], by_severity[WARNING]
    if severe:
        return (
            f"{severe:,} finding{' is' if severe == 1 else 's are'} severe: do not trust a score on this data before"
            f" {'it is' if severe == 1 else 'they are'} resolved."
        )
    if warnings:
        return f"Nothing severe. {warnings:,} warning{' is' if warnings == 1 else 's are'} worth a look."
    if by_severity[INFO]:
        return "Nothing severe and no warnings."
    return "Nothing was found in what was checked."


def _row_ids(finding: Finding) -> list[str]:
    """The ids of all rows that a finding is about: itself, its partner, and the others of its group."""
    members = finding.details.get("members", [])
    return list(dict.fromkeys(id_ for id_ in (finding.id, finding.partner, *members) if id_))


def _not_shown(finding: Finding) -> int:
    """How many rows of a finding's group the page has no image of. `count` in the details is their number where not
    all are listed in `members`."""
    listed = len(_row_ids(finding))
    return max(listed, int(finding.details.get("count", 0))) - min(listed, MOST_MEMBERS)


def _shown_rows(findings: Sequence[Finding], rows: Mapping[str, PageRow]) -> dict[str, PageRow]:
    """The rows with an image on the page, by id, in the order of the findings."""
    shown: dict[str, PageRow] = {}
    for finding in findings:
        for id_ in _row_ids(finding)[:MOST_MEMBERS]:
            if id_ not in shown:
                shown[id_] = rows.get(id_) or PageRow(id=id_, path=None, labels={}, split="")
    return shown


def _line(finding: Finding) -> dict[str, str]:
    """A finding as one line, for a browser without scripts."""
    ids = _row_ids(finding)
    count = len(ids[:MOST_MEMBERS]) + _not_shown(finding)
    more = f" and {count - 2:,} more" if count > 2 else ""
    return {
        "severity": SEVERITY_TITLES[finding.severity],
        "kind": KINDS[finding.kind],
        "rows": ", ".join(ids[:2]) + more,
        "advice": finding.advice,
    }


def _data(
    findings: Sequence[Finding], rows: Mapping[str, PageRow], thumbnails: Sequence[Thumbnail]
) -> dict[str, Any]:
    """What the script shows, without the images. Rows, kinds, splits and classes are named by their places in lists."""
    kinds = [kind for kind in KINDS if any(finding.kind == kind for finding in findings)]
    splits = list(dict.fromkeys(row.split for row in rows.values() if row.split))
    classes = sorted({(target, label) for row in rows.values() for target, label in row.labels.items()})
    labels_of_target = Counter(target for target, _ in classes)
    place_of_class = {name: place for place, name in enumerate(classes)}
    place_of_row = {id_: place for place, id_ in enumerate(rows)}
    return {
        "kinds": [KINDS[kind] for kind in kinds],
        "severities": [[severity, SEVERITY_TITLES[severity]] for severity in SEVERITIES],
        "splits": splits,
        "classes": [
            {"target": target, "label": label, "offered": labels_of_target[target] <= MOST_CLASSES}
            for target, label in classes
        ],
        "targets": len(labels_of_target),
        "rows": [
            {
                "id": row.id,
                "split": splits.index(row.split) if row.split else -1,
                "labels": [place_of_class[name] for name in row.labels.items()],
                "why": thumbnail.reason,
            }
            for row, thumbnail in zip(rows.values(), thumbnails, strict=True)
        ],
        "findings": [
            {
                "kind": kinds.index(finding.kind),
                "severity": SEVERITIES.index(finding.severity),
                "rows": [place_of_row[id_] for id_ in _row_ids(finding)[:MOST_MEMBERS]],
                "others": _row_ids(finding)[MOST_MEMBERS:],
                "not_shown": _not_shown(finding),
                "value": finding.value,
                "shown_value": "" if finding.value is None else short_number(finding.value),
                "advice": finding.advice,
                "facts": _facts(finding.details),
            }
            for finding in findings
        ],
        "rows_a_block": ROWS_A_BLOCK,
    }


def _facts(details: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The details of a finding as names and texts, as far as they are plain values or lists of these."""
    facts = []
    for name, value in details.items():
        values = value if isinstance(value, list | tuple) else [value]
        if (
            name in ("members", "count")
            or not values
            or not all(isinstance(part, str | int | float) for part in values)
        ):
            continue
        more = f" and {len(values) - MOST_IN_A_FACT:,} more" if len(values) > MOST_IN_A_FACT else ""
        text = ", ".join(_fact_text(part) for part in values[:MOST_IN_A_FACT]) + more
        facts.append((str(name).replace("_", " "), text))
    return facts


def _fact_text(value: str | int | float) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value if isinstance(value, str) else short_number(value)


def _image_blocks(thumbnails: Sequence[Thumbnail]) -> list[Markup]:
    """The images as several JSON texts, so that a browser decodes those only that it comes to."""
    return [
        json_block([thumbnail.uri for thumbnail in thumbnails[start : start + ROWS_A_BLOCK]])
        for start in range(0, len(thumbnails), ROWS_A_BLOCK)
    ]
