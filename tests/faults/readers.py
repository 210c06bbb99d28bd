"""Readers of what users and others hand in, under inputs that hypothesis draws: only errors of our own come out.

Each input is a valid document with a few edits: bytes and stretches changed, or a value in its tree replaced by one of
another type, size or meaning. So most inputs get far before they fail, and many do not fail.
"""

import copy
import json
import shutil
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.faults import trials
from tests.faults.counting import Count, Figure

ODD_TEXT = st.one_of(
    st.text(max_size=12),
    st.sampled_from(
        [
            "",
            " ",
            "\0",
            "\ufeff",
            "\ud800",
            "..",
            "/",
            "~",
            "nan",
            "inf",
            "-0",
            "1e999",
            "true",
            "=1+1",
            "a" * 3000,
            "\u202e",
            "None",
        ]
    ),
)
ODD_VALUE = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-3, 100),
        st.sampled_from([2**63, -(2**63), 10**30, 0.5, 1e308, -1e-320, float("nan"), float("inf")]),
        ODD_TEXT,
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(ODD_TEXT, inner, max_size=3)),
    max_leaves=5,
)
# Where (as a share of the length), what is done there, and with which bytes.
EDITS = st.lists(
    st.tuples(
        st.floats(0, 1, exclude_max=True),
        st.sampled_from(["flip", "delete", "insert", "double", "cut"]),
        st.one_of(
            st.binary(min_size=1, max_size=6),
            st.sampled_from(
                [
                    b"\n",
                    b'"',
                    b",",
                    b";",
                    b"\t",
                    b"\r\n",
                    b"\0",
                    b"[",
                    b"]",
                    b"{",
                    b"=",
                    b"'''",
                    b"\xff\xfe",
                    b"\xef\xbb\xbf",
                    b"-1",
                    b"9" * 40,
                ]
            ),
        ),
        st.integers(1, 30),
    ),
    min_size=1,
    max_size=4,
)


def edited(data: bytes, edits: list[tuple[float, str, bytes, int]]) -> bytes:
    """The bytes after the edits."""
    for share, kind, piece, length in edits:
        at = int(share * max(1, len(data)))
        if kind == "flip":
            data = (
                data[:at] + bytes([(data[at] if at < len(data) else 0) ^ (1 << length % 8)]) + data[at + 1 :]
            )
        elif kind == "delete":
            data = data[:at] + data[at + length :]
        elif kind == "insert":
            data = data[:at] + piece + data[at:]
        elif kind == "double":
            data = data[: at + length] + data[at:]
        elif length > 25:
            data = data[:at]
    return data


def places_of(tree: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a tree where a value stands."""
    found = [above] if above else []
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        found += places_of(value, (*above, key))
    return found


def replaced(tree: Any, changes: list[tuple[tuple[Any, ...], str, Any]]) -> Any:
    """A copy of a tree with values replaced, taken away or added."""
    tree = copy.deepcopy(tree)
    for place, kind, value in changes:
        here = tree
        try:
            for key in place[:-1]:
                here = here[key]
            if kind == "remove":
                del here[place[-1]]
            elif kind == "add" and isinstance(here, dict):
                here[str(value)[:20]] = value
            else:
                here[place[-1]] = value
        except (KeyError, IndexError, TypeError):
            continue  # an earlier change has taken the place away
    return tree


def changes_of(tree: Any) -> st.SearchStrategy[Any]:
    """One to three changes of a tree."""
    kinds = st.sampled_from(["replace", "replace", "replace", "remove", "add"])
    return st.lists(st.tuples(st.sampled_from(places_of(tree)), kinds, ODD_VALUE), min_size=1, max_size=3)


def drawn(strategy: st.SearchStrategy[Any], tries: int, take: Callable[[Any], str]) -> Count:
    """So many inputs; `take` says which kind of end each had, and raises what is not ours."""
    from classwise.errors import ClasswiseError

    count = Count()

    @settings(
        max_examples=tries,
        database=None,
        deadline=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def one(value: Any) -> None:
        if count.tried >= tries:
            return
        try:
            count.add(True, take(value))
        except ClasswiseError as error:
            count.add(bool(str(error)), "refused", "an empty message")
        except Exception as error:
            count.add(False, "another error", f"{type(error).__name__}: {error!s:.200} for {value!r:.300}")

    one()
    return count


def fuzz_config(tries: int) -> dict[str, Any]:
    """The text of a config, and its tree."""
    import tomli_w

    from classwise.config.load import load_config, make_config

    tree: dict[str, Any] = {
        "seed": 1,
        "name": "x",
        "data": {
            "source": "a.csv",
            "images": ".",
            "valid": 0.2,
            "augment": {"preset": "light", "flip": 0.5},
            "sampling": "balanced",
            "workers": 0,
        },
        "targets": {
            "mask": {"column": "mask", "labels": ["a", "b"], "loss": {"name": "focal", "gamma": 1.0}},
            "age": {"column": "age", "type": "regression", "edges": [30.0, 60.0], "weight": 2.0},
            "tags": {"column": "tags", "type": "multilabel", "separator": "|"},
        },
        "joint": {"targets": ["mask", "age"]},
        "model": {"backbone": "small_cnn", "image_size": [16, 16], "dropout": 0.1},
        "loss": {"name": "sum", "terms": [{"name": "cross_entropy", "weight": 1.0}, {"name": "focal"}]},
        "optimizer": {"name": "adamw", "lr": 1e-3, "betas": [0.9, 0.99], "options": {"amsgrad": True}},
        "schedule": {"name": "cosine", "warmup_epochs": 1.0},
        "training": {"epochs": 2, "batch_size": 8, "clip_norm": 1.0, "ema": 0.9},
        "selection": {"metric": "mask.macro_f1", "first_epoch": 0.5, "patience": 3},
    }
    text = tomli_w.dumps(tree).encode()
    folder = trials.scratch_folder()
    path = folder / "classwise.toml"
    options = st.lists(
        st.tuples(st.sampled_from([".".join(map(str, place)) for place in places_of(tree)]), ODD_TEXT),
        max_size=2,
    )

    def take(value: Any) -> str:
        kind, drawn_value, overrides = value
        if kind == "text":
            path.write_bytes(edited(text, drawn_value))
            load_config(path, overrides)
        else:
            make_config(replaced(tree, drawn_value), overrides)
        return "accepted"

    strategy = st.one_of(
        st.tuples(st.just("text"), EDITS, options), st.tuples(st.just("tree"), changes_of(tree), options)
    )
    count = drawn(strategy, tries, take)
    shutil.rmtree(folder, ignore_errors=True)
    return count.as_dict()


def _table_bytes() -> dict[str, bytes]:
    import io

    import polars as pl

    rows = {
        "path": ["a.png", "b.png", "c d.png"],
        "mask": ["x", "y", "x"],
        "age": ["1", "30.5", ""],
        "tags": ["x|y", "", "y"],
        "rel": ["0", "1", "2"],
        "query": ["q", "q", "r"],
    }
    frame = pl.DataFrame(rows)
    typed = frame.with_columns(pl.col("age").cast(pl.Float64, strict=False), pl.Series("rel", [0, 1, 2]))
    found = {".csv": frame.write_csv().encode(), ".tsv": frame.write_csv(separator="\t").encode()}
    for name, one in {".parquet": frame, ".typed.parquet": typed}.items():
        out = io.BytesIO()
        one.write_parquet(out)
        found[name] = out.getvalue()
    return found


def fuzz_table(tries: int) -> dict[str, Any]:
    """Tables of each kind, read as data with a target of every type."""
    from classwise.data.sources import read_source
    from classwise.data.target_from_table import make_target

    folder = trials.scratch_folder()
    for name in ("a.png", "b.png", "c d.png"):
        (folder / name).write_bytes(b"x")
    tables = _table_bytes()
    targets = [
        ("mask", "class"),
        ("mask", "ordinal"),
        ("age", "regression"),
        ("tags", "multilabel"),
        ("rel", "ranking"),
    ]

    def take(value: Any) -> str:
        suffix, edits, (column, kind) = value
        path = folder / f"t{suffix}"
        path.write_bytes(edited(tables[suffix], edits))
        samples = read_source(path, folder, "path", None, None)
        separator = "|" if kind == "multilabel" else None
        query = "query" if kind == "ranking" else None
        target = make_target("it", kind, column, None, None, None, separator, query, samples.frame, "t")
        target.encode(samples.frame, "t")
        return "accepted"

    count = drawn(st.tuples(st.sampled_from(list(tables)), EDITS, st.sampled_from(targets)), tries, take)
    shutil.rmtree(folder, ignore_errors=True)
    return count.as_dict()


def fuzz_template(tries: int) -> dict[str, Any]:
    """A competition's template."""
    from classwise.infer.submission import find_images, read_template

    folder = trials.scratch_folder()
    (folder / "images").mkdir()
    for name in ("a.png", "b.png", "c d.png"):
        (folder / "images" / name).write_bytes(b"x")
    text = b'ImageID,ans\na.png,\nb,\n"c d.png",\n'
    other = b"id\tmask\tage\na\t\t\nb.png\t\t\n"

    def take(value: Any) -> str:
        suffix, edits, joint, column = value
        path = folder / f"t{suffix}"
        path.write_bytes(edited(text if suffix == ".csv" else other, edits))
        form = read_template(path, ["mask", "age"], joint, column)
        find_images(form, folder / "images")
        return "accepted"

    strategy = st.tuples(
        st.sampled_from([".csv", ".tsv"]),
        EDITS,
        st.booleans(),
        st.sampled_from([None, None, "ImageID", "id", "x"]),
    )
    count = drawn(strategy, tries, take)
    shutil.rmtree(folder, ignore_errors=True)
    return count.as_dict()


def fuzz_manifest(tries: int) -> dict[str, Any]:
    """The manifest of a checkpoint, its own hash made to fit again in half of the cases."""
    from classwise.files import json_text, sha256
    from classwise.run.checkpoint import newest_checkpoint, read_checkpoint
    from tests.faults.states import files_of, put

    folder = trials.scratch_folder()
    files = files_of(1)
    place = put(folder, "last", files)
    data = files["manifest.json"]
    tree = json.loads(data)

    def take(value: Any) -> str:
        kind, drawn_value, fitting = value
        found = edited(data, drawn_value) if kind == "text" else None
        if found is None:
            changed = replaced(tree, drawn_value)
            if fitting and isinstance(changed, dict):
                changed.pop("sha256", None)
                try:
                    changed["sha256"] = sha256(json_text(changed).encode())
                    found = json_text(changed).encode()
                except (ValueError, UnicodeEncodeError):
                    found = json.dumps(changed).encode()
            else:
                found = json.dumps(changed).encode()
        (place / "manifest.json").write_bytes(found)
        read_checkpoint(place)
        newest_checkpoint(folder, lambda text: None)
        return "accepted"

    strategy = st.one_of(
        st.tuples(st.just("text"), EDITS, st.booleans()),
        st.tuples(st.just("tree"), changes_of(tree), st.booleans()),
    )
    count = drawn(strategy, tries, take)
    shutil.rmtree(folder, ignore_errors=True)
    return count.as_dict()


def fuzz_checkpoint(tries: int) -> dict[str, Any]:
    """A checkpoint whose hashes fit, with another state or other tensors, restored into a run."""
    from classwise.files import json_text, sha256
    from classwise.run import checkpoint as checkpoints
    from tests.faults.states import FACTS, MADE_ON, files_of, put, trained

    folder = trials.scratch_folder()
    files = files_of(2)
    tree = json.loads(files["state.json"])
    state = trained(0)
    assert FACTS
    assert MADE_ON

    def take(value: Any) -> str:
        kind, drawn_value, name = value
        found = dict(files)
        if kind == "tree":
            found["state.json"] = json.dumps(replaced(tree, drawn_value)).encode()
        else:
            found[name] = edited(files[name], drawn_value)
        manifest = json.loads(files["manifest.json"])
        manifest.pop("sha256")
        manifest["files"] = {
            n: {"size": len(found[n]), "sha256": sha256(found[n])} for n in checkpoints.FILES
        }
        signed = manifest | {"sha256": sha256(json_text(manifest).encode())}
        found["manifest.json"] = json_text(signed).encode()
        read = checkpoints.read_checkpoint(put(folder, "last", found))
        checkpoints.restore(state, read)
        return "accepted"

    strategy = st.one_of(
        st.tuples(st.just("tree"), changes_of(tree), st.just("")),
        st.tuples(st.just("text"), EDITS, st.sampled_from(checkpoints.FILES)),
    )
    count = drawn(strategy, tries, take)
    shutil.rmtree(folder, ignore_errors=True)
    return count.as_dict()


def sabotaged(tries: int) -> dict[str, int]:
    """How many foreign errors come out where they are not turned into our own."""
    import tomllib
    from unittest import mock

    from classwise.config import load as config_file
    from classwise.run import checkpoint

    class ForeignError(Exception):
        """What no except clause knows."""

    def breaking(real: Callable[..., Any], wrong: type[Exception]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            try:
                return real(*arguments, **options)
            except wrong as error:
                raise ForeignError(str(error)) from error

        return call

    found = {}
    with mock.patch.object(config_file.tomllib, "loads", breaking(tomllib.loads, tomllib.TOMLDecodeError)):
        found["config"] = len(fuzz_config(tries)["failures"])
    with mock.patch.object(checkpoint.json, "loads", breaking(json.loads, ValueError)):
        found["manifest"] = len(fuzz_manifest(tries)["failures"])
    return found


def _figure(name: str, what: str, function: str) -> Figure:
    def count() -> Count:
        from tests.faults.kills import count_of

        return count_of(trials.in_a_fresh_process("readers", function, 100_000))

    return Figure(
        13, name, f"inputs to the reader of {what}, drawn by hypothesis: only errors of our own", count
    )


FIGURES = [
    _figure("fuzz-config", "configs and options", "fuzz_config"),
    _figure("fuzz-table", "tables and their targets", "fuzz_table"),
    _figure("fuzz-template", "submission templates", "fuzz_template"),
    _figure("fuzz-manifest", "manifests", "fuzz_manifest"),
    _figure("fuzz-checkpoint", "checkpoints", "fuzz_checkpoint"),
]
