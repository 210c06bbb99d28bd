"""From copies to findings: rows that hold the same image, where that makes a score too good, and whose labels
differ."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from classwise.datacheck.copies import CopyPair
from classwise.datacheck.finding import INFO, SEVERE, WARNING, Finding
from classwise.datacheck.rows import TRAIN, Rows

AS_IT_IS = "the same"
"""What `how` says of a copy that is not turned, cropped or resized: brighter, say, or compressed again."""
MOST_MEMBERS = 200
"""Rows of a group that a finding lists; more are counted."""


def copy_findings(
    rows: Rows, exact: Sequence[Sequence[int]], near: Sequence[CopyPair], group_of: Sequence[int]
) -> list[Finding]:
    """Findings of kinds exact-copy, near-copy and label-conflict. `exact`: the rows of each image that several rows
    hold, pixel for pixel; `near`: links that connect near copies; `group_of`: the number of each row's group of copies,
    by both. Copies within another set alone are that set's own affair."""
    is_other_N = rows.is_other
    members_of: defaultdict[int, list[int]] = defaultdict(list)
    for row, group in enumerate(group_of):
        members_of[group].append(row)
    pairs_of: defaultdict[int, list[CopyPair]] = defaultdict(list)
    for pair in near:
        pairs_of[group_of[pair.a]].append(pair)
    exact = [members for members in exact if not is_other_N[list(members)].all()]
    groups = [group for group in sorted(pairs_of) if not is_other_N[members_of[group]].all()]
    found = [_exact(rows, members) for members in exact]
    found += [_near(rows, members_of[group], pairs_of[group]) for group in groups]

    # A contradiction within an exact group is one of its near group, too, and is named once.
    named: set[tuple[str, int, int]] = set()
    for members in exact:
        found += _conflicts(rows, members, named, is_exact=True)
    for group in groups:
        found += _conflicts(rows, members_of[group], named, is_exact=False)
    return found


def _exact(rows: Rows, members: Sequence[int]) -> Finding:
    sides = _sides(rows, members)
    first, partner = _across(rows, members)
    crosses = len(sides) > 1
    count = f"{len(members)} rows hold the same image, pixel for pixel"
    if crosses:
        advice = f"{count}, in {_counted(sides)}: a score on such rows is memory. {_leave_out(rows, members)}"
    else:
        advice = f"{count}; a split of classwise keeps them together. Keep one of them, unless each counts"
    return Finding(
        kind="exact-copy",
        severity=SEVERE if crosses else INFO,
        id=rows.ids[first],
        partner=rows.ids[partner],
        value=float(len(members)),
        advice=advice,
        details=_details(rows, members, sides),
    )


def _near(rows: Rows, members: Sequence[int], pairs: Sequence[CopyPair]) -> Finding:
    sides = _sides(rows, members)
    # The pair to look at: across two sides where there is one, and then the one that agrees best.
    best = max(
        pairs,
        key=lambda pair: (rows.side_of[pair.a] != rows.side_of[pair.b], pair.value, -pair.a),
    )
    how = sorted({pair.how for pair in pairs} - {"", AS_IT_IS})
    count = f"{len(members)} rows hold nearly the same image" + (f" ({', '.join(how)})" if how else "")
    if len(sides) > 1:
        severity = SEVERE
        advice = (
            f"{count}, in {_counted(sides)}: a score on such rows is too good. {_leave_out(rows, members)}"
        )
    elif rows.is_given or TRAIN not in sides or _share_group(rows, members):
        severity = INFO
        advice = f"{count}, all in {_counted(sides)}, which no split divides"
    else:
        severity = WARNING
        advice = (
            f"{count}: a random split puts some of them on both sides, and the score is too good."
            " --write-groups writes a table with a column that keeps them together (data.group)"
        )
    return Finding(
        kind="near-copy",
        severity=severity,
        id=rows.ids[best.a],
        partner=rows.ids[best.b],
        value=round(best.value, 4),
        advice=advice,
        details=_details(rows, members, sides) | ({"how": how} if how else {}),
    )


def _conflicts(
    rows: Rows, members: Sequence[int], named: set[tuple[str, int, int]], is_exact: bool
) -> list[Finding]:
    """For each target the two rows of a group whose labels differ, and how often the group has which label. Numbers may
    differ between near copies."""
    found = []
    numbers = {target.name for target in rows.targets if target.type == "regression"}
    for name, texts in rows.texts.items():
        if name in numbers and not is_exact:
            continue
        counts: dict[str, list[int]] = {}
        for row in members:
            if (text := texts[row]) is not None:
                counts.setdefault(text, []).append(row)
        if len(counts) < 2:
            continue
        labels = sorted(counts, key=lambda label: (-len(counts[label]), label))
        first, second = counts[labels[0]][0], counts[labels[1]][0]
        if (name, first, second) in named:
            continue
        named.add((name, first, second))
        known = [row for row in members if texts[row] is not None]
        listed = ", ".join(f"{label!r} in {rows_text(len(counts[label]))}" for label in labels[:8])
        same = "The same image, pixel for pixel," if is_exact else "Nearly the same image"
        found.append(
            Finding(
                kind="label-conflict",
                severity=SEVERE if is_exact else WARNING,
                id=rows.ids[second],
                partner=rows.ids[first],
                value=float(len(known) - len(counts[labels[0]])),
                advice=f"{same} is labeled differently ({name}): {listed}. Look at it, and give all rows one label",
                details=_details(rows, known, _sides(rows, known)) | {"target": name},
            )
        )
    return found


def rows_text(count: int) -> str:
    """`1 row`, `2 rows`."""
    return f"{count} row{'' if count == 1 else 's'}"


def _sides(rows: Rows, members: Sequence[int]) -> dict[str, int]:
    """How many of the rows are on which side."""
    counts: dict[str, int] = {}
    for row in members:
        counts[rows.side_of[row]] = counts.get(rows.side_of[row], 0) + 1
    return counts


def _counted(sides: Mapping[str, int]) -> str:
    """`train (3), valid (2) and test (1)`."""
    *first, last = [f"{name} ({count})" for name, count in sides.items()]
    return f"{', '.join(first)} and {last}" if first else last


def _leave_out(rows: Rows, members: Sequence[int]) -> str:
    if any(rows.is_other[row] for row in members):
        return "Take them out of the data before that set scores a model"
    return "Take them out of all sides but one"


def _across(rows: Rows, members: Sequence[int]) -> tuple[int, int]:
    """The first row, and the first on another side where there is one."""
    first = members[0]
    others = [row for row in members[1:] if rows.side_of[row] != rows.side_of[first]]
    return first, (others or members[1:])[0]


def _share_group(rows: Rows, members: Sequence[int]) -> bool:
    """Whether the data's own groups (data.group) hold the rows together already."""
    column = rows.table.group_column
    if column is None or not all(rows.is_source[row] for row in members):
        return False
    groups = rows.table.frame[column].to_list() if column in rows.table.frame.columns else []
    return bool(groups) and len({groups[rows.places[row]] for row in members}) == 1


def _details(rows: Rows, members: Sequence[int], sides: Mapping[str, int]) -> dict[str, object]:
    return {
        "members": [rows.ids[row] for row in members[:MOST_MEMBERS]],
        "count": len(members),
        "parts": dict(sides),
    }
