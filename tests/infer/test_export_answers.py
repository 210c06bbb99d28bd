"""The answers inside a file are those of `predictions_table` and `with_abstentions`."""

import numpy as np
import onnxruntime
import polars as pl
import pytest
import torch
from torch import Tensor

from classwise.decision.rules import Rule
from classwise.infer.decided import DecidedHead, with_abstentions
from classwise.infer.ensemble import DecodedHead
from classwise.infer.export import program_bytes
from classwise.infer.export_answers import Answers, output_names
from classwise.infer.predict import predictions_table
from classwise.model.heads import ClassHead, Head, MultilabelHead, OrdinalHead, RankingHead, RegressionHead

PLAIN: dict[str, Head] = {
    "kind": ClassHead(4, adjustment=(0.5, 0.0, -1.0, 0.2)),
    "level": OrdinalHead(4),
    "tags": MultilabelHead(3),
    "size": RegressionHead(mean=10.0, std=2.0, edges=(9.0, 10.5)),
    "rank": RankingHead(),
}
DECIDED: dict[str, Head] = {
    "kind": DecidedHead(
        ClassHead(4), temperature=1.7, rule=Rule("tuned", (0.3, -0.5, 0.0, 1.0)), abstain=0.5
    ),
    "level": DecidedHead(OrdinalHead(4), temperature=0.6, rule=Rule("tuned", (0.4, 0.0, -0.7)), abstain=0.4),
    "tags": DecidedHead(
        MultilabelHead(3), temperature=2.0, rule=Rule("tuned", (0.4, -0.8, 0.0)), abstain=0.6
    ),
    "plain": DecidedHead(OrdinalHead(3), temperature=1.3, abstain=0.7),
    "cost": DecidedHead(
        ClassHead(3), rule=Rule("expected_cost", costs=((0.0, 1.0, 9.0), (1.0, 0.0, 1.0), (2.0, 1.0, 0.0)))
    ),
    "size": DecodedHead(RegressionHead(mean=10.0, std=2.0, edges=(9.0, 10.5))),
}
JOINTS = {"plain": ("kind", "level"), "with a number": ("size", "kind"), "decided": ("level", "kind")}


def outputs_of(heads: dict[str, Head], rows: int = 200) -> dict[str, Tensor]:
    """Drawn raw outputs; of a decided ordinal target log probabilities."""
    draw = torch.Generator().manual_seed(0)
    found = {}
    for name, head in heads.items():
        raw = torch.randn(rows, head.outputs, generator=draw) * 2
        found[name] = (
            raw.log_softmax(dim=1) if isinstance(head, DecidedHead) and head.type != "multilabel" else raw
        )
    return found


@pytest.mark.parametrize(
    ("heads", "joint"),
    [
        (PLAIN, JOINTS["plain"]),
        (PLAIN, JOINTS["with a number"]),
        (PLAIN, ()),
        (DECIDED, JOINTS["decided"]),
        (DECIDED, JOINTS["with a number"]),
    ],
)
def test_as_in_the_table_of_predictions(heads: dict[str, Head], joint: tuple[str, ...]) -> None:
    """Labels, probabilities, the joint class and marks, of every type of target, with and without a decision."""
    outputs = outputs_of(heads)
    names = output_names(heads, joint)
    data = program_bytes(
        Answers(heads, joint),
        tuple(raw[:2] for raw in outputs.values()),
        dynamic_shapes=(tuple({0: torch.export.Dim("batch")} for _ in outputs),),
        input_names=list(outputs),
        output_names=names,
        what="the answers",
    )
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    found = dict(zip(names, session.run(names, {k: v.numpy() for k, v in outputs.items()}), strict=True))
    labels = {
        name: [f"{name} {k}" for k in range(head.classes or head.outputs)]
        for name, head in heads.items()
        if head.type in ("class", "ordinal", "multilabel")
    }
    table = predictions_table([str(row) for row in range(200)], outputs, heads, labels, joint)
    table = with_abstentions(table, outputs, heads, joint)
    for name, head in heads.items():
        assert_target(table, found, name, head, labels.get(name, []))
    if joint:
        assert found["answers.joint"].tolist() == table["joint"].to_list()
    assert ("probabilities.joint" in found) == ("joint_p" in table.columns)
    if "joint_p" in table.columns:
        np.testing.assert_allclose(found["probabilities.joint"], table["joint_p"].to_numpy(), atol=1e-6)
    marks = {column.removesuffix("_abstain") for column in table.columns if column.endswith("_abstain")}
    assert {key.removeprefix("abstains.") for key in found if key.startswith("abstains.")} == marks
    for name in marks:
        assert found[f"abstains.{name}"].tolist() == table[f"{name}_abstain"].to_list()


def assert_target(
    table: pl.DataFrame, found: dict[str, np.ndarray], name: str, head: Head, labels: list[str]
) -> None:
    """The columns of one target."""
    answer = found[f"answers.{name}"]
    if head.type in ("class", "ordinal"):
        assert [labels[k] for k in answer] == table[name].to_list()
        assert len(set(answer.tolist())) > 1
    elif head.type == "multilabel":
        joined = ["|".join(label for label, x in zip(labels, row, strict=True) if x) or "|" for row in answer]
        assert joined == table[name].to_list()
    else:
        np.testing.assert_allclose(answer, table[name].to_numpy(), rtol=1e-6)
    for k, label in enumerate(labels):
        expected = table[f"{name}_p_{label}"].to_numpy()
        np.testing.assert_allclose(found[f"probabilities.{name}"][:, k], expected, atol=1e-6)
