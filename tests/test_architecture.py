"""The architecture's promises: imports go one way, the loop is the lecture on one screen, nothing heavy comes early."""

import ast
import graphlib
import inspect
import os
import subprocess
import sys
import tomllib
from pathlib import Path

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


def test_the_loop_is_the_lecture_on_one_screen() -> None:
    """train_one_epoch has at most 45 lines, and the lecture's five in their order, once each."""
    source = inspect.getsource(train_one_epoch)
    assert len(source.splitlines()) <= 45
    body = ast.unparse(ast.parse(source).body[0])
    lines = ["model.train()", "optimizer.zero_grad()", "loss = criterion(", ".backward()", ".step(optimizer)"]
    places = [body.index(line) for line in lines]
    assert places == sorted(places)
    assert [body.count(line) for line in lines] == [1, 1, 1, 1, 1]


def test_the_five_lines_stand_in_the_right_loops() -> None:
    """zero_grad and step once a window; criterion and backward once a micro-batch inside it."""
    tree = ast.parse(inspect.getsource(train_one_epoch))
    outer, inner = [node for node in ast.walk(tree) if isinstance(node, ast.For)]
    inside = ast.unparse(inner)
    assert "criterion(outputs" in inside
    assert ".backward()" in inside
    around = ast.unparse(outer).replace(ast.unparse(inner), "")
    for line in ("zero_grad()", ".step(optimizer)"):
        assert line in around
        assert line not in inside


def test_evaluation_is_eval_without_gradients() -> None:
    """evaluate() stands below no_grad and calls eval(); nothing in it calls train()."""
    source = inspect.getsource(evaluate)
    assert source.startswith("@torch.no_grad()")
    assert "model.eval()" in source
    assert ".train()" not in source
    assert "train_one_epoch(" in inspect.getsource(train)


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
    """A pickle runs code when it is loaded: nothing imports pickle, and torch.load is called once, for the weights
    of an installed package, restricted to tensors."""
    calls = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {alias.name for alias in node.names} | {getattr(node, "module", None)}
                assert not {"pickle", "joblib", "dill", "shelve"} & names, path
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
                calls.append((path.name, "weights_only=True" in ast.unparse(node)))
    assert calls == [("backbone.py", True)]


def test_the_package_is_typed() -> None:
    """py.typed is shipped, so that users' type checkers believe the annotations."""
    assert (PACKAGE / "py.typed").is_file()


def test_every_public_name_is_there() -> None:
    """__all__ is what the documentation promises, and every name in it exists."""
    assert set(classwise.__all__) >= {"ClasswiseError", "Config", "Run", "load_config", "resume", "train"}
    for name in classwise.__all__:
        assert getattr(classwise, name) is not None
    with pytest.raises(AttributeError, match="nonsense"):
        _ = classwise.nonsense
