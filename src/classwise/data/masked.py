"""Rows without a label for some target: what a run and its report say of them, in the same words."""


def masked_text(target: str, rows: int) -> str:
    """`age: no label in 40 rows, which count for the other targets only`."""
    return f"{target}: no label in {rows} rows, which count for the other targets only"
