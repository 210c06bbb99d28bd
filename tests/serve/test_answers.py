"""The service's answers are those of `predict`: for every type of target, for folds, in batches of any size."""

import dataclasses
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch

from classwise.console import Console
from classwise.decision.rules import Rule
from classwise.infer.decided import DecidedHead, with_abstentions
from classwise.infer.predict import predictions_table
from classwise.kfold.api import Folds
from classwise.model.heads import ClassHead, Head, MultilabelHead, OrdinalHead, RegressionHead
from classwise.run.api import Run
from classwise.serve.answers import joint_answers, target_answers
from classwise.serve.model import NOT_FINITE, PreparedImage, ServedModel, served_model
from tests.helpers.scenes import PLAIN, command, plain_table, write_config
from tests.helpers.served import LIMITS, SECONDS, Running, drawn, running

Json = dict[str, Any]
FLOAT = 2e-5
"""What two engines, or batches of two sizes, may differ by."""


def refuse_difference(
    answer: Json, row: Mapping[str, Any], labels: Mapping[str, Any], exact: bool = False
) -> None:
    """An image's answer has what its row of `predict` has."""
    same = pytest.approx if exact else lambda value: pytest.approx(value, rel=FLOAT, abs=FLOAT)
    for name, target in answer["targets"].items():
        if target["type"] in ("regression", "ranking"):
            assert target.get("value", target.get("score")) == same(row[name])
            continue
        said = target["label"] if "label" in target else "|".join(target["labels"]) or "|"
        assert said == row[name]
        for label in labels[name]:
            assert target["probabilities"][label] == same(row[f"{name}_p_{label}"])
        if target["type"] != "multilabel":
            assert target["probability"] == target["probabilities"][target["label"]]
        assert target.get("abstain") == row.get(f"{name}_abstain")
    if "joint" in row:
        assert answer["joint"]["number"] == row["joint"]
        assert answer["joint"]["probability"] == same(row["joint_p"])


def test_every_type_of_target_is_answered_as_predict_does(
    model: ServedModel, trained: Path, files: list[tuple[str, bytes]]
) -> None:
    table = Run.open(trained / "run").predict(trained / "images")
    rows = {row["id"]: row for row in table.iter_rows(named=True)}
    with running(model) as service:
        for start in range(0, len(files), LIMITS.max_images):
            some = files[start : start + LIMITS.max_images]
            response = service.predict(*some)
            assert response.status_code == 200
            answers = response.json()["images"]
            assert [answer["name"] for answer in answers] == [name for name, _ in some]
            for answer in answers:
                refuse_difference(answer, rows[answer["name"]], model.predictor.labels)
    assert model.engine_name == "onnx"


def test_an_image_has_the_same_answer_alone_and_in_a_batch(
    model: ServedModel, files: list[tuple[str, bytes]]
) -> None:
    """To the last bit, with ONNX Runtime."""
    inputs = [model.prepare(data) for _, data in files]
    together = model.answers(inputs)
    assert together == [model.answers([image])[0] for image in inputs]


def test_a_raw_body_has_the_answer_of_a_form(model: ServedModel, files: list[tuple[str, bytes]]) -> None:
    name, data = files[0]
    with running(model) as service:
        raw = service.client.post("/predict", content=data, headers={"Content-Type": "image/png"})
        other = service.client.post(
            "/predict", content=data, headers={"Content-Type": "application/octet-stream"}
        )
        (expected,) = service.predict((name, data)).json()["images"]
    assert raw.json() == other.json() == {"images": [{k: v for k, v in expected.items() if k != "name"}]}


@pytest.mark.parametrize("suffix", [".jpg", ".webp", ".bmp", ".tif"])
def test_other_formats_and_sizes_are_prepared_as_predict_does(
    model: ServedModel, trained: Path, suffix: str
) -> None:
    data = drawn(3, (301, 173), suffix)
    (row,) = Run.open(trained / "run").predict([data]).iter_rows(named=True)
    answers = model.answers([model.prepare(data)])
    refuse_difference(answers[0].model_dump(exclude_none=True), row, model.predictor.labels)


def test_folds_answer_with_their_decision_tta_and_ensemble(tmp_path: Path) -> None:
    plain_table(tmp_path, 24)
    changes = {"training__epochs": 1, "decision__abstain": 0.6, "decision__temperature": "auto"}
    config = write_config(tmp_path, PLAIN, report__resamples=0, **changes)
    command("folds", config, "--folds", 2, "--run", tmp_path / "F").ok()
    files = [(path.name, path.read_bytes()) for path in sorted((tmp_path / "images").iterdir())][:8]
    for options in ({}, {"tta": "flip", "ensemble": "logits"}):
        opened = Folds.open(tmp_path / "F", **options)
        model = served_model(opened, "torch", None, Console(quiet=True))
        rows = opened.predict([data for _, data in files], ids=[name for name, _ in files])
        assert rows["label_abstain"].dtype == pl.Boolean
        with running(model) as service:
            answers = service.predict(*files).json()["images"]
            assert service.client.get("/health").json()["models"] == 2
        for answer, row in zip(answers, rows.iter_rows(named=True), strict=True):
            refuse_difference(answer, row, model.predictor.labels)


def outputs_of(head: Head, rows: int = 6) -> torch.Tensor:
    rng = torch.Generator().manual_seed(head.outputs)
    return 3 * torch.randn((rows, head.outputs), generator=rng)


def test_decided_heads_are_answered_as_in_the_table() -> None:
    """Cuts, temperatures, marks and the joint class, exactly."""
    plain: dict[str, Head] = {"kind": ClassHead(3), "level": OrdinalHead(4), "tags": MultilabelHead(3)}
    heads: dict[str, Head] = {
        "kind": DecidedHead(
            plain["kind"], temperature=1.7, rule=Rule("tuned", offsets=(0.4, -1.0, 0.2)), abstain=0.5
        ),
        "level": DecidedHead(plain["level"], abstain=0.4),
        "tags": DecidedHead(plain["tags"], rule=Rule("tuned", offsets=(0.8, -0.5, 0.0)), abstain=0.6),
    }
    labels = {"kind": ["a", "b", "c"], "level": ["0", "1", "2", "3"], "tags": ["x", "y", "z"]}
    outputs = {
        name: outputs_of(head).log_softmax(dim=1) if name != "tags" else outputs_of(head)
        for name, head in heads.items()
    }
    table = predictions_table([str(row) for row in range(6)], outputs, heads, labels, joint=["kind", "level"])
    table = with_abstentions(table, outputs, heads, ["kind", "level"])
    found = {name: target_answers(head, outputs[name], labels[name]) for name, head in heads.items()}
    joined = joint_answers(["kind", "level"], heads, outputs, found)
    for row, expected in enumerate(table.iter_rows(named=True)):
        targets = {name: answers[row].model_dump(exclude_none=True) for name, answers in found.items()}
        joint = joined[row].model_dump(exclude_none=True)
        refuse_difference({"targets": targets, "joint": joint}, expected, labels, exact=True)
        assert joint["abstain"] == expected["joint_abstain"]


def test_a_joint_class_with_a_number_in_it_has_no_probability() -> None:
    heads: dict[str, Head] = {"kind": ClassHead(3), "size": RegressionHead(10.0, 2.0, edges=(9.0, 10.5))}
    labels = {"kind": ["a", "b", "c"]}
    outputs = {name: outputs_of(head) for name, head in heads.items()}
    joint = ["size", "kind"]
    table = predictions_table([str(row) for row in range(6)], outputs, heads, labels, joint=joint)
    found = {name: target_answers(head, outputs[name], labels.get(name, ())) for name, head in heads.items()}
    joined = joint_answers(joint, heads, outputs, found)
    assert [answer.number for answer in joined] == table["joint"].to_list()
    assert len(set(table["joint"])) > 1
    assert {answer.probability for answer in joined} == {None}
    assert "joint_p" not in table.columns


def test_of_many_classes_the_five_most_probable_are_answered() -> None:
    head = ClassHead(300)
    labels = [f"label {k}" for k in range(300)]
    outputs = outputs_of(head)
    ids = [str(row) for row in range(6)]
    table = predictions_table(ids, {"kind": outputs}, {"kind": head}, {"kind": labels})
    for answer, row in zip(target_answers(head, outputs, labels), table.iter_rows(named=True), strict=True):
        found = answer.model_dump(exclude_none=True)
        assert "probabilities" not in found
        assert [one["label"] for one in found["top"]] == [row[f"kind_top{rank}"] for rank in range(1, 6)]
        assert [one["probability"] for one in found["top"]] == [
            row[f"kind_top{rank}_p"] for rank in range(1, 6)
        ]
        assert (found["label"], found["probability"]) == (row["kind"], row["kind_p"])


def test_an_image_without_finite_outputs_does_not_spoil_its_batch(model: ServedModel) -> None:
    inputs = [model.prepare(drawn(seed)) for seed in range(3)]

    def engine(images_BCHW: torch.Tensor) -> dict[str, torch.Tensor]:
        outputs = {name: raw.clone() for name, raw in model.engine(images_BCHW).items()}
        outputs["level"][1, 0] = torch.nan
        return outputs

    broken = dataclasses.replace(model, engine=engine)
    found = broken.answers(inputs)
    expected = model.answers(inputs)
    assert (found[0], found[2]) == (expected[0], expected[2])
    assert found[1].error == NOT_FINITE
    assert found[1].targets is None


def test_a_bad_image_among_good_ones_has_an_entry_of_its_own(model: ServedModel) -> None:
    """The status is 200 as long as one image can be used, and 422 where none can."""
    good, cut = drawn(1), drawn(2)[:-30]
    with running(model) as service:
        mixed = service.predict(("a.png", good), ("../../etc/passwd", cut), ("c.png", good))
        assert mixed.status_code == 200
        first, bad, last = mixed.json()["images"]
        assert first["targets"] == last["targets"]
        assert bad == {"name": "../../etc/passwd", "error": bad["error"]}
        assert service.predict(("a.png", cut)).status_code == 422
        assert service.predict(("a.png", cut), ("b.png", b"")).status_code == 422
        assert service.metric('classwise_images_total{result="refused"}') == 4
        assert service.metric('classwise_images_total{result="answered"}') == 2


def test_health_says_what_is_served(model: ServedModel) -> None:
    with running(model) as service:
        found = service.client.get("/health").json()
    assert (found["status"], found["model"], found["engine"]) == ("ready", "run", "onnx")
    assert found["image_size"] == [24, 24]
    assert list(found["targets"]) == list(model.predictor.heads)
    counts = found["targets"]["label"]["training_images"]
    assert list(counts) == ["a", "b", "c"]
    assert sum(counts.values()) > 0


def test_sixteen_clients_all_get_their_own_answers(model: ServedModel) -> None:
    """200 requests, each with an image that no other one has; several go through the model together."""
    images = [drawn(seed, (25 + seed % 7, 31)) for seed in range(200)]
    expected = [model.answers([model.prepare(data)])[0].model_dump(exclude_none=True) for data in images]
    limits = dataclasses.replace(LIMITS, queue=64)

    def ask(service: Running, number: int) -> Json:
        response = service.predict((f"{number}.png", images[number]))
        assert response.status_code == 200
        (answer,) = response.json()["images"]
        assert answer.pop("name") == f"{number}.png"
        return answer

    with running(model, limits) as service, ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda number: ask(service, number), range(200)))
        assert service.metric("classwise_batch_images_sum") == 200
        assert service.metric("classwise_queue_images") == 0
    assert answers == expected


def test_images_that_wait_together_are_one_batch(model: ServedModel) -> None:
    """The model is held up with the first image until all others are decoded."""
    sizes: list[int] = []
    decoded = threading.Semaphore(0)

    def engine(images_BCHW: torch.Tensor) -> dict[str, torch.Tensor]:
        if not sizes:
            assert all(decoded.acquire(timeout=SECONDS) for _ in range(LIMITS.max_images))
        sizes.append(len(images_BCHW))
        return model.engine(images_BCHW)

    class Counted(ServedModel):
        def prepare(self, data: bytes | bytearray) -> PreparedImage:
            image_HWC = super().prepare(data)
            decoded.release()
            return image_HWC

    values = {field.name: getattr(model, field.name) for field in dataclasses.fields(model)}
    with running(Counted(**values | {"engine": engine})) as service:
        answers = service.predict(*((f"{seed}.png", drawn(seed)) for seed in range(8))).json()["images"]
    assert len(answers) == sum(sizes) == LIMITS.max_images
    assert 1 < max(sizes) <= LIMITS.batch
