"""What `classwise check` finds: one line of check.csv, one entry of check.json, one card of check.html."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

INFO, WARNING, SEVERE = "info", "warning", "severe"
SEVERITIES = (SEVERE, WARNING, INFO)
"""From the worst down, as everything is sorted."""

KINDS = {
    "exact-copy": "Exact copies",
    "near-copy": "Near copies",
    "label-conflict": "Contradictory labels",
    "label-error": "Likely label errors",
    "unreadable": "Unreadable images",
    "blank": "Blank images",
    "dark": "Dark images",
    "bright": "Bright images",
    "blurred": "Blurred images",
    "odd-size": "Odd sizes",
    "odd-mode": "Odd pixel formats",
    "outlier": "Outliers",
    "shortcut": "Shortcuts",
    "shift": "Shift",
}
"""Kinds of findings, with their titles, in the order of the page."""


@dataclass(frozen=True)
class Finding:
    """One thing that was found.

    `id`: the row that it is of, empty for one of the whole data. `partner`: the id of another row that it is about, or
    empty. `value`: the number by which findings of a kind are ranked (what it is depends on the kind; higher is worse),
    or None. `advice`: what was found and what to do, in a sentence or two. `details`: more, for check.json and the
    page, as JSON values.
    """

    kind: str
    severity: str
    id: str
    partner: str
    value: float | None
    advice: str
    details: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind: found {self.kind!r}, allowed: {', '.join(KINDS)}")
        if self.severity not in SEVERITIES:
            raise ValueError(f"severity: found {self.severity!r}, allowed: {', '.join(SEVERITIES)}")
