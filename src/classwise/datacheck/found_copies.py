"""From copies to findings: rows that hold the same image, where that makes a score too good, and whose labels
differ."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from classwise.datacheck.finding import INFO, SEVERE, WARNING, Finding
from classwise.datacheck.rows import UNKNOWN, Rows

AS_IT_IS = "the same"
"""What `how` says of a copy that is not turned, cropped or resized: brighter, say, or compressed again."""
MOST_MEMBERS = 200
"""Rows of a group that a finding lists; more are counted."""


@dataclass(frozen=True)
class Pair:
    """Two rows that hold copies: `value` says how sure that is, from 0 to 1, and `how` the second came from the first,
    as far as known."""

    first: int
    second: int
    value: float
    how: str


def copy_findings(
    rows: Rows, exact: Sequence[Sequence[int]], near: Sequence[Pair], group_of: Sequence[int]
) -> list[Finding]:
    """Findings of kinds exact-copy, near-copy and label-conflict. `exact`: the rows of each image that several rows
    hold, pixel for pixel; `near`: links that connect near copies; `group_of`: the number of each row's group of copies,
    by both."""
    found = [_exact(rows, members) for members in exact]
    members_of: defaultdict[int, list[int]] = defaultdict(list)
    for row, group in enumerate(group_of):
        members_of[group].append(row)
    pairs_of: defaultdict[int, list[Pair]] = defaultdict(list)
    for pair in near:
        pairs_of[group_of[pair.first]].append(pair)
    found += [_near(rows, members_of[group], pairs) for group, pairs in sorted(pairs_of.items())]

    # A contradiction within an exact group is one of its near group, too, and is named once.
    named: set[tuple[int, int]] = set()
    for members in exact:
        found += _conflicts(rows, members, named, is_exact=True)
    for group in sorted(pairs_of):
        found += _conflicts(rows, members_of[group], named, is_exact=False)
    return found


def _exact(rows: Rows, members: Sequence[int]) -> Finding:
    parts = _parts(rows, members)
    first, partner = _across(rows, members)
    crosses = len(parts) > 1
    count = f"{len(members)} rows hold the same image, pixel for pixel"
    if crosses:
        advice = f"{count}, in {_counted(parts)}: a score on such rows is memory. {_leave_out(rows, members)}"
    else:
        advice = f"{count}; a split of classwise keeps them together. Keep one of them, unless each counts"
    return Finding(
        kind="exact-copy",
        severity=SEVERE if crosses else INFO,
        id=rows.ids[first],
        partner=rows.ids[partner],
        value=float(len(members)),
        advice=advice,
        details=_details(rows, members, parts),
    )


def _near(rows: Rows, members: Sequence[int], pairs: Sequence[Pair]) -> Finding:
    parts = _parts(rows, members)
    crosses = len(parts) > 1
    # The pair to look at: across two parts where there is one, and then the surest.
    best = max(
        pairs,
        key=lambda pair: (rows.part_of[pair.first] != rows.part_of[pair.second], pair.value, -pair.first),
    )
    how = sorted({pair.how for pair in pairs} - {"", AS_IT_IS})
    count = f"{len(members)} rows hold nearly the same image" + (f" ({', '.join(how)})" if how else "")
    severity = SEVERE
    if crosses:
        advice = (
            f"{count}, in {_counted(parts)}: a score on such rows is too good. {_leave_out(rows, members)}"
        )
    elif rows.is_given or _share_group(rows, members):
        severity = INFO
        advice = f"{count}, all in {parts_text(parts)} and never divided by the split"
    else:
        severity = WARNING
        advice = (
            f"{count}: a random split puts some of them on both sides, and the score is too good. --write-groups adds a"
            " column that keeps them together (data.group)"
        )
    return Finding(
        kind="near-copy",
        severity=severity,
        id=rows.ids[best.first],
        partner=rows.ids[best.second],
        value=round(best.value, 4),
        advice=advice,
        details=_details(rows, members, parts) | ({"how": how} if how else {}),
    )


def _conflicts(
    rows: Rows, members: Sequence[int], named: set[tuple[int, int]], is_exact: bool
) -> list[Finding]:
    """For each target the two rows of a group whose labels differ, and how often the group has which label."""
    found = []
    for name, texts in rows.texts.items():
        known = [row for row in members if texts[row] != UNKNOWN]
        counts: dict[str, list[int]] = {}
        for row in known:
            counts.setdefault(texts[row], []).append(row)
        if len(counts) < 2:
            continue
        labels = sorted(counts, key=lambda label: (-len(counts[label]), label))
        first, second = counts[labels[0]][0], counts[labels[1]][0]
        if (first, second) in named:
            continue
        named.add((first, second))
        listed = ", ".join(f"{label!r} {len(counts[label])} times" for label in labels[:8])
        same = "the same image, pixel for pixel," if is_exact else "nearly the same image"
        found.append(
            Finding(
                kind="label-conflict",
                severity=SEVERE if is_exact else WARNING,
                id=rows.ids[second],
                partner=rows.ids[first],
                value=float(len(known) - len(counts[labels[0]])),
                advice=f"{same} is labeled differently ({name}): {listed}. Look at it, and give all rows one label",
                details=_details(rows, known, _parts(rows, known)) | {"target": name},
            )
        )
    return found


def _parts(rows: Rows, members: Sequence[int]) -> dict[str, int]:
    """How many of the rows are in which part."""
    counts: dict[str, int] = {}
    for row in members:
        counts[rows.part_of[row]] = counts.get(rows.part_of[row], 0) + 1
    return counts


def parts_text(parts: Mapping[str, int]) -> str:
    """`train and test`."""
    return " and ".join(parts)


def _counted(parts: Mapping[str, int]) -> str:
    """`train (3) and test (1)`."""
    return " and ".join(f"{name} ({count})" for name, count in parts.items())


def _leave_out(rows: Rows, members: Sequence[int]) -> str:
    if any(rows.is_other[row] for row in members):
        return "Take them out of training before that set scores a model"
    return "Take them out of one of the parts"


def _across(rows: Rows, members: Sequence[int]) -> tuple[int, int]:
    """The first row, and the first of another part where there is one."""
    first = members[0]
    others = [row for row in members[1:] if rows.part_of[row] != rows.part_of[first]]
    return first, (others or members[1:])[0]


def _share_group(rows: Rows, members: Sequence[int]) -> bool:
    """Whether the data's own groups (data.group) hold the rows together already."""
    groups = rows.own.groups
    if groups is None or any(row >= len(groups) for row in members):
        return False
    return len({groups[row] for row in members}) == 1


def _details(rows: Rows, members: Sequence[int], parts: Mapping[str, int]) -> dict[str, object]:
    return {
        "members": [rows.ids[row] for row in members[:MOST_MEMBERS]],
        "count": len(members),
        "parts": dict(parts),
    }
