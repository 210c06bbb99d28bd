"""A run goes to a hub and comes back: nothing of its data is in it, it predicts the same, and what is damaged, foreign
or not trusted is refused. The hub is a stand-in on the loopback, the client is the real one."""

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard, constants
from huggingface_hub.repocard_data import model_index_to_eval_results

import classwise
from classwise.errors import CheckpointError, ModelError, OutputError, TrustError
from classwise.integrations.hub import parsed_address, write_hub_folder
from classwise.run import bundle
from classwise.run.folder import RunFolder
from tests.helpers.hub_server import TOKEN, Hub, hub_server
from tests.helpers.own_parts import own_part
from tests.helpers.scenes import MANY, many_table, plain_table, write_config, write_csv

# Of the hub's client, which hands a file to its HTTP library in an older way.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload:DeprecationWarning")

QUICK: dict[str, Any] = {"training__epochs": 2, "report__resamples": 30, "report__baselines": False}
UPLOADED = {
    "README.md",
    "config.toml",
    "labels.json",
    "metrics.json",
    "status.json",
    *(f"checkpoints/best/{name}" for name in ("manifest.json", "state.json")),
    *(f"checkpoints/best/{name}.safetensors" for name in ("model", "training")),
}
NET = """
from torch import nn


class Net(nn.Module):
    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(channels, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.num_features = 4

    def forward(self, images):
        return self.layers(images)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs with one target (`run`), with four (`many`), with code of its own (`own`), and folds, beside their data."""
    folder = tmp_path_factory.mktemp("secret-place")
    plain_table(folder, count=32)
    classwise.train(write_config(folder, **QUICK, data__test=0.25), run=folder / "run", quiet=True)
    own = own_part(folder, NET, "Net", "my_net.py")
    config = write_config(folder, **QUICK, model__backbone=own)
    classwise.train(config, run=folder / "own", quiet=True)
    (folder / "many-data").mkdir()
    many_table(folder / "many-data")
    classwise.train(write_config(folder / "many-data", MANY, **QUICK), run=folder / "many", quiet=True)
    return folder


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """An empty hub that the client knows, with a cache and a token of its own, and without Xet's own servers."""
    with hub_server() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.endpoint)
        files = server.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", files)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield server


def test_there_and_back(folder: Path, hub: Hub) -> None:
    """The same predictions to the bit, as a run and as a module; only the files that are meant to be there."""
    url = classwise.push_to_hub(folder / "run", "someone/stripes", license="mit")
    assert url == f"{hub.endpoint}/someone/stripes/commit/{hub.repositories['someone/stripes'].head}"
    assert hub.repositories["someone/stripes"].private
    assert hub.repositories["someone/stripes"].files.keys() == UPLOADED | {".gitattributes"}

    run = classwise.from_hub("someone/stripes")
    original = classwise.Run.open(folder / "run")
    expected = original.predict(folder / "images")
    assert run.predict(folder / "images").equals(expected)
    assert run.metrics == original.metrics
    model = classwise.load("hf://someone/stripes@main")
    image = model.transform(folder / "images" / "00.png")
    assert model.probabilities(image[None])["label"][0, 0] == pytest.approx(
        expected["label_p_a"][0], abs=1e-6
    )
    scores = run.evaluate(folder / "samples.csv", images=folder)
    assert scores["samples"] == 32
    assert "no split.csv" in scores["warnings"][0]


def test_nothing_of_the_data_is_uploaded(folder: Path, tmp_path: Path) -> None:
    """No path of this machine, no name of an image, no id, no prediction; the optimizer's state neither."""
    out = write_hub_folder(folder / "many", tmp_path / "out")
    files = {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert files.keys() == UPLOADED
    for name, data in files.items():
        for word in ("secret-place", str(Path.home()), "images/", ".png", "samples.csv"):
            assert word.encode() not in data, (name, word)
    assert len(files["checkpoints/best/training.safetensors"]) < 100
    data = tomllib.loads(files["config.toml"].decode())["data"]
    assert (data["source"], data["images"], data["cache"]) == ("data", ".", "auto")
    assert json.loads(files["labels.json"])["label"] == ["a", "b", "c"]


def test_why_a_run_failed_is_not_uploaded(folder: Path) -> None:
    """The reason may name an image, and so may what was skipped of the test rows."""
    run = classwise.Run.open(folder / "run")
    status, metrics = run.folder.status(), run.folder.metrics()
    assert "reason" in bundle.bundle(run.folder)["status.json"].decode()
    failed = status | {"state": "failed", "reason": "ImageError: faces/kim.png: cut short"}
    skipped = metrics | {"test": metrics["test"] | {"skipped": [{"path": "faces/kim.png"}]}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunFolder, "status", lambda self: failed)
        patch.setattr(RunFolder, "metrics", lambda self: skipped)
        files = bundle.bundle(run.folder)
    assert json.loads(files["status.json"])["state"] == "failed"
    assert json.loads(files["metrics.json"])["test"]["samples"] == metrics["test"]["samples"]
    assert not any(b"kim.png" in data for data in files.values())


def test_a_path_that_slips_through_stops_the_upload(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A last look at all files, were a key with a place to be forgotten."""
    monkeypatch.setattr(bundle, "without_places", lambda config: config)
    with pytest.raises(OutputError, match=r"would hold /.*, a path of this machine; nothing was uploaded"):
        write_hub_folder(folder / "run", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_card_says_what_the_run_is(folder: Path, tmp_path: Path) -> None:
    """Its metadata is what the hub's client reads back: scores by split, as in metrics.json; only a license that was
    given."""
    notes = {"license": "cc-by-4.0", "dataset": "Stripes | of 2026", "tags": ["stripes"], "language": "en"}
    out = write_hub_folder(folder / "run", tmp_path / "out", "someone/stripes", **notes)
    card = ModelCard.load(out / "README.md")
    assert card.data.license == "cc-by-4.0"
    assert card.data.library_name == "classwise"
    assert card.data.pipeline_tag == "image-classification"
    assert card.data.tags == ["classwise", "small_cnn", "stripes"]
    name, results = model_index_to_eval_results(card.data.to_dict()["model-index"])
    assert name == "stripes"
    found = {(one.dataset_split, one.metric_name): one.metric_value for one in results}
    metrics = classwise.Run.open(folder / "run").metrics
    for split, scored in (("validation", metrics), ("test", metrics["test"])):
        for key, shown in (("macro_f1", "macro F1"), ("accuracy", "accuracy")):
            value = scored["targets"]["label"][key]
            assert found[split, f"{shown} of label"] == pytest.approx(value, abs=1e-6)
    assert {one.dataset_name for one in results} == {"Stripes | of 2026"}
    for said in (
        'classwise.from_hub("someone/stripes")',
        r"Stripes \| of 2026: 16 rows to train on, 8 that chose the epoch, 8 that chose nothing.",
        "| label | train | valid | test |",
        "16 x 16 px: squashed to that size",
    ):
        assert said in card.text, card.text
    without = ModelCard.load(write_hub_folder(folder / "run", tmp_path / "plain") / "README.md")
    assert without.data.license is None
    assert "license" not in without.data.to_dict()


def test_cards_of_other_targets(folder: Path, tmp_path: Path) -> None:
    """Each type has its own scores, and classes that are hit worst are named, the lowest first."""
    card = ModelCard.load(write_hub_folder(folder / "many", tmp_path / "out") / "README.md")
    _, results = model_index_to_eval_results(card.data.to_dict()["model-index"])
    names = {one.metric_name for one in results}
    assert {"macro F1 of label", "MAE in levels of level", "micro F1 of tags", "MAE of size"} <= names
    worst = card.text.partition("## What it is not good at")[2]
    rows = [line for line in worst.splitlines() if line.startswith("| ") and line.count("|") == 6]
    scores = [float(row.split("|")[2]) for row in rows if "F1" not in row and "---" not in row]
    assert scores
    assert scores[0] == min(scores[: len(scores)])


def test_labels_cannot_be_markup(tmp_path: Path) -> None:
    """A label is text in its cell, whatever characters it has."""
    rows = plain_table(tmp_path, count=24)
    evil = {"a": "<script>|[x](y)`", "b": "---\nlicense: mit\n---"}
    write_csv(tmp_path / "samples.csv", ("path", "label"), [[path, evil[label]] for path, label in rows])
    classwise.train(write_config(tmp_path, **QUICK), run=tmp_path / "run", quiet=True)
    card = ModelCard.load(write_hub_folder(tmp_path / "run", tmp_path / "out") / "README.md")
    assert card.data.license is None
    assert "<script>" not in card.text
    assert r"| &lt;script&gt;\|\[x\](y)\` |" in card.text


def test_a_public_repository_is_refused_unless_it_is_meant(folder: Path, hub: Hub) -> None:
    """The hub's client keeps the visibility of a repository that exists, whatever `private` says."""
    classwise.push_to_hub(folder / "run", "someone/open", private=False)
    assert not hub.repositories["someone/open"].private
    before = hub.repositories["someone/open"].head
    with pytest.raises(OutputError, match="hf://someone/open is public; private=False uploads to it"):
        classwise.push_to_hub(folder / "many", "someone/open")
    assert hub.repositories["someone/open"].head == before
    classwise.push_to_hub(folder / "many", "someone/open", private=False)
    assert hub.repositories["someone/open"].head != before


def test_code_of_ones_own_is_refused_without_trust(folder: Path, hub: Hub) -> None:
    """It is uploaded, as no prediction could be made without it; whoever downloads it has to name its digest. Of the
    next run without such code nothing of it is left."""
    trust = json.loads((folder / "own" / "code" / "manifest.json").read_text())["files"]["my_net.py"][
        "sha256"
    ]
    classwise.push_to_hub(folder / "own", "someone/own", trust=trust)
    files = hub.repositories["someone/own"].files
    assert files.keys() == UPLOADED | {".gitattributes", "code/my_net.py", "code/manifest.json"}
    assert b"It has code of its own (`my_net.py`)" in files["README.md"]
    for load in (classwise.from_hub, lambda name, **trusted: classwise.load(f"hf://{name}", **trusted)):
        with pytest.raises(TrustError, match=r"code of its own.*my_net\.py"):
            load("someone/own")
    run = classwise.from_hub("someone/own", trust=trust)
    expected = classwise.Run.open(folder / "own", trust=trust).predict(folder / "images")
    assert run.predict(folder / "images").equals(expected)
    classwise.push_to_hub(folder / "run", "someone/own")
    assert hub.repositories["someone/own"].files.keys() == UPLOADED | {".gitattributes"}


def test_earlier_commits(folder: Path, hub: Hub) -> None:
    """`owner/name@revision` and `revision=` name one; without a network, what was downloaded is used."""
    classwise.push_to_hub(folder / "run", "someone/two")
    first = hub.repositories["someone/two"].head
    classwise.push_to_hub(folder / "many", "someone/two")
    assert list(classwise.load("hf://someone/two").labels) == ["label", "level", "tags"]
    assert list(classwise.load(f"hf://someone/two@{first}").labels) == ["label"]
    assert len(classwise.from_hub("someone/two", revision=first).metrics["targets"]) == 1
    with pytest.raises(
        ModelError, match="revision: found 'v2' and hf://someone/two@v1; allowed: one of them"
    ):
        classwise.from_hub("someone/two@v1", revision="v2")


def test_a_damaged_or_foreign_repository(folder: Path, hub: Hub) -> None:
    """A changed byte of the weights fails the manifest; a repository of something else is told; a pickle in it is not
    even downloaded."""
    classwise.push_to_hub(folder / "run", "someone/broken")
    repository = hub.repositories["someone/broken"]
    weights = bytearray(repository.files["checkpoints/best/model.safetensors"])
    weights[-1] ^= 1
    changed = {"checkpoints/best/model.safetensors": bytes(weights), "pytorch_model.bin": b"a pickle"}
    repository.commit(repository.files | changed)
    run = classwise.from_hub("someone/broken")
    assert not (run.path / "pytorch_model.bin").exists()
    assert not any("pytorch_model.bin" in request for request in hub.requests)
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        run.predict(folder / "images")
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        classwise.load("hf://someone/broken")
    repository.commit({"config.json": b"{}", "pytorch_model.bin": b"a pickle"})
    with pytest.raises(ModelError, match="holds no run of classwise"):
        classwise.from_hub("someone/broken")


def test_what_the_hub_refuses_is_said_in_one_line(
    folder: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A repository that there is none of, or that the token does not open; a hub that is not there."""
    with pytest.raises(ModelError, match=r"^hf://someone/none: "):
        classwise.from_hub("someone/none")
    classwise.push_to_hub(folder / "run", "someone/closed")
    with pytest.raises(ModelError, match=r"^hf://someone/closed: "):
        classwise.from_hub("someone/closed", token="hf_another")
    with pytest.raises(ModelError, match=r"^hf://someone/new: "):
        classwise.push_to_hub(folder / "run", "someone/new", token="hf_another")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match=r"^hf://someone/none: "):
        classwise.from_hub("someone/none")


@pytest.mark.parametrize(
    ("address", "parsed"),
    [
        ("owner/name", ("owner/name", None)),
        ("hf://owner/na.me-2@v1.0", ("owner/na.me-2", "v1.0")),
        ("hf://owner/name@refs/pr/3", ("owner/name", "refs/pr/3")),
    ],
)
def test_addresses(address: str, parsed: tuple[str, str | None]) -> None:
    """With and without scheme and revision."""
    assert parsed_address(address) == parsed


@pytest.mark.parametrize("address", ["name", "hf://name", "a/b/c", "https://host/a/b", "../a", "a b/c", ""])
def test_what_is_no_address(address: str) -> None:
    """The message says what one looks like."""
    with pytest.raises(ModelError, match="allowed: owner/name, or hf://owner/name@revision"):
        parsed_address(address)


def test_a_folder_that_has_files_is_not_overwritten(folder: Path, tmp_path: Path) -> None:
    """By write_hub_folder, which shows what would be uploaded."""
    (tmp_path / "kept").write_text("")
    with pytest.raises(OutputError, match="already exists"):
        write_hub_folder(folder / "run", tmp_path)
