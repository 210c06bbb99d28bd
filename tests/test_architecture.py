"""The architecture's promises: imports go one way, the loop is the lecture, nothing heavy is imported early."""

import ast
import graphlib
import inspect
import os
import subprocess
import sys
import textwrap
import tokenize
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grimp
import pytest
from importlinter.cli import lint_imports

import classwise
from classwise.training.loop import evaluate, train, train_one_epoch

PACKAGE = Path(classwise.__file__).parent
ROOT = Path(__file__).parent.parent


def test_the_import_contracts_hold(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """import-linter finds every layer below the ones that use it, and the loop ignorant of files and config."""
    monkeypatch.chdir(ROOT)
    broken = lint_imports(no_cache=True)
    assert broken == 0, capsys.readouterr().out


def test_every_module_has_its_layer() -> None:
    """A module or package that stands in no layer could import what it likes."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    layers = [name.strip() for layer in settings["contracts"][0]["layers"] for name in layer.split("|")]
    found = [path.stem for path in PACKAGE.glob("*.py") if path.stem != "__init__"]
    found += [path.parent.name for path in PACKAGE.glob("*/__init__.py")]
    assert sorted(layers) == sorted(f"classwise.{name}" for name in found)


def test_no_module_is_in_an_import_cycle() -> None:
    """All modules can be put in an order in which each comes after what it imports, lazy imports included."""
    graph = grimp.build_graph("classwise", exclude_type_checking_imports=True, cache_dir=None)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    assert len(imports) > 40
    order = list(graphlib.TopologicalSorter(imports).static_order())
    assert (
        order.index("classwise.errors")
        < order.index("classwise.training.loop")
        < order.index("classwise.run.api")
    )


LECTURE = (
    "model.train()",
    "optimizer.zero_grad()",
    "outputs = forward(",
    "loss = criterion(",
    "loss.backward()",
    "optimizer.step()",
)
BLOCKS = (ast.For, ast.While, ast.If, ast.With, ast.Try)


def statements(function: Callable[..., Any]) -> list[tuple[int, str]]:
    """Every simple statement of a function in order: how many blocks deep it stands, and its text."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]

    def walk(node: ast.AST, depth: int) -> Iterator[tuple[int, str]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, BLOCKS):
                yield from walk(child, depth + 1)
            elif isinstance(child, ast.stmt):
                yield depth, ast.unparse(child)
            elif isinstance(child, ast.ExceptHandler):
                yield from walk(child, depth)

    return list(walk(tree, 0))


def test_the_loop_is_the_lecture() -> None:
    """The lecture's lines stand in train_one_epoch once each, in their order: forward, criterion and backward in the
    innermost loop, zero_grad before it and step after it, once an update."""
    found = [
        (depth, line)
        for depth, text in statements(train_one_epoch)
        for line in LECTURE
        if text.startswith(line)
    ]
    assert [line for _, line in found] == list(LECTURE)
    depths = {line: depth for depth, line in found}
    assert depths["outputs = forward("] == depths["loss = criterion("] == depths["loss.backward()"] == 4
    assert depths["model.train()"] == 0
    assert depths["optimizer.zero_grad()"] == 2
    assert 2 <= depths["optimizer.step()"] <= 3


@pytest.mark.parametrize("function", [train, train_one_epoch, evaluate])
def test_the_loop_is_at_most_four_blocks_deep(function: Callable[..., Any]) -> None:
    """A reader has to keep no more in mind."""
    assert max(depth for depth, _ in statements(function)) <= 4


def test_several_processes_stay_in_the_background() -> None:
    """They are named three times at most in train_one_epoch."""
    assert inspect.getsource(train_one_epoch).count("processes") <= 3


def test_evaluation_is_eval_without_gradients() -> None:
    """evaluate() computes no gradients and calls eval() before the first forward pass; nothing in it trains."""
    texts = [text for _, text in statements(evaluate)]
    assert texts.index("model.eval()") < next(i for i, text in enumerate(texts) if "forward(batch" in text)
    assert not any(".train()" in text for text in texts)
    decorators = ast.parse(inspect.getsource(evaluate)).body[0].decorator_list
    assert [ast.unparse(decorator) for decorator in decorators] == ["torch.no_grad()"]


# What the field calls otherwise: see docs/decisions/0025-names-and-rooms.md.
# fmt: off
OWN_WORDS = frozenset({
    "ALONE", "AllRows", "CheckpointKeeper", "Choices", "ClassTally", "Fitting", "FiniteUpdates", "Keeper",
    "LabelTally", "ModelFacts", "NOWHERE", "Notes", "Nowhere", "PictureStore", "Pictures", "Prepared", "Put",
    "Scoreboard", "Side", "StoredPictures", "Tally", "UNBORN", "Watch", "counts_rows", "for_people",
    "held_back", "host_mass", "is_first", "joined_processes", "keeper", "label_mass", "least_size",
    "make_tally", "mass", "masses", "may_run_ahead", "over_mass", "prepared", "scoreboard", "settle", "_mass",
    "started_together", "take_back", "tallies", "tally", "told_by_first", "torch_kept", "unanswered", "waited",
    "window_mass", "without_answers", "world",
})
# fmt: on


@pytest.mark.parametrize("folder", ["src", "tests", "benchmarks"])
def test_words_of_our_own_do_not_come_back(folder: str) -> None:
    """No identifier is one of the names that the field's own terms have replaced, and none speaks of pictures."""
    found = set()
    for path in sorted((ROOT / folder).rglob("*.py")):
        with tokenize.open(path) as file:
            names = [
                token for token in tokenize.generate_tokens(file.readline) if token.type == tokenize.NAME
            ]
        found |= {
            f"{path.relative_to(ROOT)}:{token.start[0]}: {token.string}"
            for token in names
            if token.string in OWN_WORDS or "picture" in token.string.lower()
        }
    assert not found


@pytest.mark.parametrize(
    "statement", ["import classwise", "import classwise.cli", "from classwise import errors"]
)
def test_the_package_is_light(statement: str) -> None:
    """Importing the package, or the command line, loads no torch and none of its like."""
    heavy = (
        "{'torch', 'torchvision', 'timm', 'polars', 'cv2', 'sklearn', 'pydantic', 'numpy', 'PIL', 'jinja2'}"
    )
    code = f"{statement}; import sys; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
        env=dict(os.environ),
    )
    assert done.stdout == "[]\n"


def test_no_pickle_stands_on_a_load_path() -> None:
    """A pickle runs code when it is loaded: nothing imports pickle, and torch.load is called for the weights of an
    installed package and by `classwise convert`, restricted to tensors."""
    calls = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {alias.name for alias in node.names} | {getattr(node, "module", None)}
                assert not {"pickle", "joblib", "dill", "shelve"} & names, path
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
                calls.append((path.name, "weights_only=True" in ast.unparse(node)))
    assert calls == [("convert.py", True), ("packaged_weights.py", True)]


def test_the_package_is_typed() -> None:
    """py.typed is shipped, so that users' type checkers believe the annotations."""
    assert (PACKAGE / "py.typed").is_file()


def test_every_public_name_is_there() -> None:
    """__all__ is what the documentation promises, and every name in it exists."""
    assert set(classwise.__all__) >= {
        "ClasswiseError",
        "Config",
        "Folds",
        "Run",
        "folds",
        "init",
        "load_config",
        "resume",
        "train",
    }
    for name in classwise.__all__:
        assert getattr(classwise, name) is not None
    with pytest.raises(AttributeError, match="nonsense"):
        _ = classwise.nonsense


def test_no_module_hides_a_public_name() -> None:
    """Importing the package or module `classwise.NAME` would replace the function classwise.NAME for good: no module is
    called like one, so that `init` and `train` stay functions after any import."""
    code = (
        "import importlib, pkgutil, classwise\n"
        "for module in pkgutil.walk_packages(classwise.__path__, 'classwise.'):\n"
        "    if not module.name.endswith('__main__') and '.integrations.' not in module.name:\n"  # these need extras
        "        importlib.import_module(module.name)\n"
        "print([n for n in ('folds', 'init', 'resume', 'train') if type(getattr(classwise, n)).__name__ != 'function'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True
    )
    assert done.stdout == "[]\n"
    modules = {path.stem for path in PACKAGE.glob("*.py")} | {
        path.parent.name for path in PACKAGE.glob("*/*.py")
    }
    assert not modules & set(classwise.__all__)
