"""The findings as files: check.csv for people and spreadsheets, check.json for programs."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from classwise.data.table import write_table
from classwise.datacheck.finding import KINDS, SEVERITIES, Finding
from classwise.files import json_text, write_bytes


@dataclass(frozen=True)
class Checked:
    """What a check was of, for the head of the page and of check.json.

    `source`: the name of the data. `rows`: the number of rows by split (train, valid, test, or the name of a set given
    with --against). `done`: a line for each thing that was looked at; `not_done`: a line for each that was not, with
    its reason. `versions`: of the programs that could change what is found."""

    source: str
    rows: Mapping[str, int]
    done: Sequence[str]
    not_done: Sequence[str]
    versions: Mapping[str, str]


def sorted_findings(findings: Sequence[Finding]) -> list[Finding]:
    """The findings in the order of every file: by severity, kind and value, the worst first; equal ones by their ids,
    so that the order in which they were found makes no difference."""
    kind_order = {kind: place for place, kind in enumerate(KINDS)}
    severity_order = {severity: place for place, severity in enumerate(SEVERITIES)}

    def key(finding: Finding) -> tuple[int, int, float, str, str, str]:
        value = -math.inf if finding.value is None else finding.value
        return (
            severity_order[finding.severity],
            kind_order[finding.kind],
            -value,
            finding.id,
            finding.partner,
            finding.advice,
        )

    return sorted(findings, key=key)


def counts(findings: Sequence[Finding]) -> dict[str, dict[str, int]]:
    """The number of findings by kind and severity, in their order; kinds without any are left out."""
    found = Counter((finding.kind, finding.severity) for finding in findings)
    kinds = {finding.kind for finding in findings}
    return {
        kind: {severity: found[kind, severity] for severity in SEVERITIES} for kind in KINDS if kind in kinds
    }


def write_check_csv(findings: Sequence[Finding], path: Path) -> None:
    """Write the table of findings: kind, severity, id, partner, value, advice. No cell is a formula for a spreadsheet
    (docs/decisions/0020-spreadsheet-formulas.md)."""
    ordered = sorted_findings(findings)
    texts = {
        name: pl.Series(
            name, [encodable(getattr(finding, name)) or None for finding in ordered], dtype=pl.String
        )
        for name in ("kind", "severity", "id", "partner", "advice")
    }
    values = pl.Series("value", [finding.value for finding in ordered], dtype=pl.Float64)
    frame = pl.DataFrame({**texts, "value": values})
    frame = frame.select("kind", "severity", "id", "partner", "value", "advice")
    write_table(frame, path, escape_formulas=True)


def write_check_json(findings: Sequence[Finding], checked: Checked, path: Path) -> None:
    """Write the summary and every finding with its details. Raises ValueError for a value that is not finite."""
    ordered = sorted_findings(findings)
    by_severity = Counter(finding.severity for finding in ordered)
    content: dict[str, Any] = {
        "source": checked.source,
        "rows": dict(checked.rows),
        "checked": list(checked.done),
        "not_checked": list(checked.not_done),
        "counts": {
            "severity": {severity: by_severity[severity] for severity in SEVERITIES},
            "kind": counts(ordered),
        },
        "versions": dict(checked.versions),
        "findings": [
            {
                "kind": finding.kind,
                "severity": finding.severity,
                "id": finding.id,
                "partner": finding.partner,
                "value": finding.value,
                "advice": finding.advice,
                "details": dict(finding.details),
            }
            for finding in ordered
        ],
    }
    write_bytes(path, encodable(json_text(content)).encode())


def encodable(text: str) -> str:
    """The text with a question mark for what UTF-8 does not have: bytes of a file name that is none."""
    return text.encode("utf-8", errors="replace").decode()
