"""The command line's contract: what exists, where output goes, exit codes, options, names of runs."""

import io
import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from classwise.cli import app, run_command
from classwise.cli_checks import check_config, check_new_run, check_run
from classwise.cli_options import parse_overrides
from classwise.config.load import make_config
from classwise.config.schema import Config
from classwise.config.toml import toml_text
from classwise.errors import CheckpointError, ConfigError, OutputError
from classwise.files import write_json
from tests.helpers.fabricated import fabricate_run
from tests.helpers.scenes import PEOPLE, command, plain_table, write_config

COMMANDS = {
    "demo",
    "init",
    "bench",
    "train",
    "resume",
    "evaluate",
    "predict",
    "submit",
    "export",
    "report",
    "compare",
    "folds",
}
HEAVY = (
    "torch",
    "torchvision",
    "timm",
    "polars",
    "cv2",
    "sklearn",
    "pydantic",
    "numpy",
    "PIL",
    "jinja2",
    "onnx",
)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a table and a config of one short epoch."""
    monkeypatch.chdir(tmp_path)
    plain_table(tmp_path)
    write_config(tmp_path, training__epochs=1)
    return tmp_path


def python(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter."""
    given = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "timeout": 300} | options
    return subprocess.run([sys.executable, *arguments], text=True, check=False, **given)


def test_training_says_something_before_anything_heavy_is_imported(here: Path) -> None:
    """The first line names the config while torch is still to be loaded, and nothing but what reads the config is;
    nothing where the config is missing, with --quiet, in another process than the first, and where torch is loaded
    already."""
    heavy = [name for name in HEAVY if name != "pydantic"]
    code = (
        "import builtins, sys\n"
        "original = print\n"
        "def spy(*texts, **options):\n"
        f"    heavy = [name for name in {heavy} if name in sys.modules]\n"
        "    original(*texts, heavy, **options)\n"
        "    if texts[0].startswith(('training ', 'resuming')): sys.exit()\n"
        "builtins.print = spy\n"
        "from classwise.cli import run_command\n"
        "run_command(sys.argv[1:])\n"
    )
    (here / "runs/plain").mkdir(parents=True)
    started = python("-c", code, "train", "classwise.toml", cwd=here)
    assert started.stderr == "training as classwise.toml says; loading torch ... []\n"
    for source in ("images", "samples.csv"):
        started = python("-c", code, "train", source, cwd=here)
        assert started.stderr == f"training with the images of {source}; loading torch ... []\n"
    write_json(here / "runs/plain/status.json", {"state": "interrupted"})
    resumed = python("-c", code, "resume", "runs/plain", cwd=here)
    assert resumed.stderr.startswith("resuming runs/plain; loading torch ... [")
    assert "torch'" not in resumed.stderr
    missing = python("-c", code, "train", "missing.toml", cwd=here)
    assert missing.stderr.startswith("error: there is no config file missing.toml")
    second = python("-c", code, "train", "classwise.toml", cwd=here, env={**os.environ, "RANK": "1"})
    assert "loading torch" not in second.stderr
    assert "loading torch" not in command("train", "classwise.toml").ok().err


def test_plain_mistakes_are_named_before_torch_is_imported(here: Path) -> None:
    """Wrong keys, files that are missing or in the way, and packages that are missing: nobody waits for torch."""
    fabricate_run(here, people=20, epochs=2)
    Path("bad.toml").write_text('seed = "', encoding="utf-8")
    Path("there.csv").touch()
    Path("there.onnx").touch()
    code = (
        "import sys, json, shlex\n"
        "sys.modules['onnxscript'] = None\n"
        "from classwise.cli import run_command\n"
        "codes = [run_command(shlex.split(line)) for line in sys.argv[1:]]\n"
        "print(json.dumps([codes, 'torch' in sys.modules]))\n"
    )
    mistakes = {
        "train classwise.toml --epochs 5": "error: --epochs: no such key; did you mean --training.epochs?",
        "folds classwise.toml --data.sorce a": "error: --data.sorce: no such key; did you mean --data.source?",
        "compare classwise.toml --lr 5": "error: --lr: no such key; did you mean --optimizer.lr?",
        "step classwise.toml --lr 5": "error: --lr: no such key; did you mean --optimizer.lr?",
        "bench bad.toml": "error: bad.toml is not TOML: ",
        "schedule bad.toml": "error: bad.toml is not TOML: ",
        "train imagez": "error: there is no file or folder imagez",
        "train images --epochs 5": "error: --epochs: no such key; did you mean --training.epochs?",
        "train classwise.toml --run run": "error: run already exists and is not overwritten",
        "predict run nowhere": "error: nowhere: there is no such table, folder or image",
        "predict run images --out there.csv": "error: there.csv exists already",
        "predict rum images": "error: rum is not a run that can be used: there is no such folder",
        "evaluate run none.csv": "error: there is no table none.csv",
        "explain run photo.jpg": "error: photo.jpg: there is no such table, folder or image",
        "export run --out there.onnx": "error: there.onnx exists already",
        "export run --out new.onnx": "error: export: the package onnxscript cannot be imported",
        "resume rum": "error: rum is not a run that can be used: there is no such folder",
    }
    done = python("-c", code, *mistakes, cwd=here)
    assert json.loads(done.stdout.splitlines()[-1]) == [[1] * len(mistakes), False], done.stderr
    for message in mistakes.values():
        assert message in done.stderr


def test_several_processes_check_nothing_alone(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They refuse together, and rank 0 alone says why."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    check_config(Path("none.toml"), [])
    check_run(Path("none"))
    check_new_run(Path("images"))


def test_help_imports_nothing_heavy() -> None:
    """--help, each command's --help and --version answer without torch and its like."""
    code = (
        "import sys, json, contextlib, io\n"
        "from classwise.cli import run_command\n"
        "with contextlib.redirect_stdout(io.StringIO()):\n"
        "    codes = [run_command(a.split()) for a in sys.argv[1:]]\n"
        "print(json.dumps([codes, sorted(sys.modules)]))\n"
    )
    asked = ["--help", "--version", "", *(f"{name} --help" for name in sorted(COMMANDS))]
    codes, loaded = json.loads(python("-c", code, *asked).stdout)
    assert codes == [0] * len(asked)
    assert not set(HEAVY) & set(loaded)


def test_commands_without_a_model_load_neither_torch_nor_scikit_learn(here: Path) -> None:
    """init, check without pretrained weights, report and keys take their time for the images, not for imports; and
    report does without the config's classes too."""
    fabricate_run(here, people=20, epochs=2)
    code = (
        "import sys, json\n"
        "from classwise.cli import run_command\n"
        "code = run_command(sys.argv[1:])\n"
        "heavy = ['torch', 'torchvision', 'timm', 'sklearn', *(['pydantic'] if 'report' in sys.argv else [])]\n"
        "print(json.dumps([code, [name for name in heavy if name in sys.modules]]))\n"
    )
    commands = [
        "init images --out written --scratch",
        "check written/classwise.toml --out checked",
        "report run",
        "keys",
    ]
    for line in commands:
        done = python("-c", code, *line.split())
        assert json.loads(done.stdout.splitlines()[-1]) == [0, []], (line, done.stderr)


def test_the_first_update_waits_neither_for_scikit_learn_nor_for_baselines(here: Path) -> None:
    """A small network's run has taken an update before the baselines are scored, which are what needs scikit-learn."""
    code = (
        "import os, sys\n"
        "from classwise.training import state\n"
        "def ended(*_):\n"
        "    print(sorted({'sklearn', 'scipy.special', 'classwise.suggest.config'} & set(sys.modules)), flush=True)\n"
        "    os._exit(0)\n"
        "state.Progress.end_update = ended\n"
        "from classwise.cli import main\n"
        "main(sys.argv[1:])\n"
    )
    options = ("--report.baselines", "true", "--data.cache", "off", "--data.workers", "0")
    done = python("-c", code, "train", "classwise.toml", "--run", "first", *options, cwd=here)
    assert done.stdout == "[]\n", done.stderr
    assert "scoring two baselines" not in done.stderr


def test_every_command_of_the_contract_exists() -> None:
    """Each is in the list that --help prints, and explains itself."""
    listed = command("--help").ok().out
    for name in COMMANDS:
        assert f"│ {name} " in listed
        assert f"classwise {name}" in command(name, "--help").ok().out
        assert app[name] is not None


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["predict", "run"],
        ["report", "run", "--nonsense"],
        ["report"],
        ["submit", "run", "template.csv", "--out", "x.csv"],
        ["export", "run"],
        ["demo", "--people", "many"],
    ],
)
def test_wrong_usage_ends_with_2(here: Path, arguments: list[str]) -> None:
    """An unknown command or option, or one that is missing: a message on stderr, nothing on stdout."""
    result = command(*arguments)
    assert (result.code, result.out) == (2, "")
    assert "Error" in result.err
    assert "Traceback" not in result.err


def test_main_ends_the_process_with_the_exit_code(here: Path) -> None:
    """`python -m classwise` hands the code on; a reader that has gone away (`| head`) is no error."""
    read, write = os.pipe()
    os.close(read)
    for arguments, code in ((["keys"], 0), (["init", "nowhere"], 1), (["nonsense"], 2)):
        done = python("-m", "classwise", *arguments, stdout=write)
        assert (done.returncode, "Traceback" in done.stderr) == (code, False), done.stderr
    os.close(write)


def test_results_go_to_stdout_and_messages_to_stderr(here: Path) -> None:
    """What a script wants to read on is alone on stdout."""
    trained = command("train", "classwise.toml", "--run", "run").ok()
    assert trained.out == "run\n"
    assert "epoch 1/1" in trained.err
    assert "12 training and 4 validation rows" in trained.err
    assert Path("run/log.txt").read_text() == trained.err
    predicted = command("predict", "run", "images", "--out", "p.csv").ok()
    assert (predicted.out, predicted.err) == ("p.csv\n", "")
    evaluated = command("evaluate", "run", "--json").ok()
    assert evaluated.err == ""
    assert json.loads(evaluated.out)["samples"] == 4
    assert command("report", "run").ok().out == "run/report.html\n"
    quiet = command("train", "classwise.toml", "--run", "quiet", "--quiet").ok()
    assert (quiet.out, quiet.err) == ("quiet\n", "")


def test_debug_shows_the_traceback(here: Path) -> None:
    """Without --debug one line, with it the error as it was raised."""
    assert command("resume", "nowhere").err.count("\n") == 1
    with pytest.raises(CheckpointError, match="no such folder"):
        run_command(["resume", "nowhere", "--debug"])
    with pytest.raises(OutputError, match="Not a directory"):
        run_command(["train", "classwise.toml", "--run", "samples.csv/run", "--debug"])


def test_runs_are_numbered_and_never_overwritten(here: Path) -> None:
    """runs/NAME, then runs/NAME-2, runs/NAME-3; --run DIR is DIR itself, with its parents."""
    for path in ("runs/plain", "runs/plain-2", "runs/plain-3"):
        assert command("train", "classwise.toml", "--quiet").ok().out == f"{path}\n"
    renamed = command("train", "classwise.toml", "--name", "2024", "--quiet").ok()
    assert renamed.out == "runs/2024\n"
    deep = command("train", "classwise.toml", "--run", "a/b/c", "--quiet").ok()
    assert deep.out == "a/b/c\n"
    assert Path("a/b/c/status.json").is_file()


def test_options_change_the_run(here: Path) -> None:
    """An option wins over the file and stands in the run's resolved config; target names work too."""
    options = ("--targets.label.loss.name", "focal", "--targets.label.loss.gamma=1.5", "--seed", "7")
    command("train", "classwise.toml", *options, "--run", "run", "--quiet").ok()
    resolved = tomllib.loads(Path("run/config.toml").read_text())
    assert resolved["targets"]["label"]["loss"]["name"] == "focal"
    assert resolved["targets"]["label"]["loss"]["gamma"] == 1.5
    assert resolved["seed"] == 7


FULL: dict[str, Any] = {
    **PEOPLE,
    "data": {**PEOPLE["data"], "id": "path", "valid": 0.3},
    "optimizer": {"name": "sgd", "momentum": 0.8, "nesterov": True, "betas": [0.8, 0.9], "eps": 1e-7},
    "selection": {"metric": "mask.macro_f1", "patience": 4},
}
KINDS: list[dict[str, Any]] = [
    {"loss": {"name": "cross_entropy", "class_weights": "inverse"}, "schedule": {"name": "constant"}},
    {"loss": {"name": "focal", "gamma": 1.0}, "schedule": {"name": "step", "step_size": 3}},
    {"loss": {"name": "balanced_softmax"}, "schedule": {"name": "cosine", "T_max": 5.0}},
    {"loss": {"name": "soft_f1"}, "schedule": {"name": "plateau", "patience": 2}},
    {
        "loss": {"name": "sum", "terms": [{"name": "focal", "weight": 2.0}, {"name": "cross_entropy"}]},
        "schedule": {"name": "onecycle", "max_lr": 0.1},
    },
]


def leaves(values: Mapping[str, Any], where: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and values of a tree."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{where}{key}.")
        elif value is not None:
            yield f"{where}{key}", value


@pytest.mark.parametrize("kind", KINDS, ids=[kind["loss"]["name"] for kind in KINDS])
def test_every_config_key_is_an_option(kind: dict[str, Any]) -> None:
    """A whole config given as options only is the same config as from a file."""
    wanted = make_config({**FULL, **kind})
    tokens: list[str] = []
    for key, value in sorted(leaves(wanted.model_dump()), key=lambda leaf: not leaf[0].endswith("name")):
        tokens += [f"--{key}", toml_text({"x": value}).removeprefix("x = ").strip()]
    assert make_config({}, parse_overrides(tuple(tokens))) == wanted


def test_keys_lists_every_key() -> None:
    """`classwise keys` names each section and each of its keys."""
    lines = command("keys").ok().out.splitlines()
    sections = {
        line.lstrip("[").partition("]")[0].partition(".")[0] for line in lines if line.startswith("[")
    }
    listed = {line.split()[0] for line in lines if line.startswith("  ")}
    assert sections | listed >= set(Config.model_fields)
    for kind in KINDS:
        for key, _ in leaves(make_config({**FULL, **kind}).model_dump()):
            assert key.rpartition(".")[2] in listed, key


@pytest.mark.parametrize("text", ["epochs=3", "-training.epochs"])
def test_what_is_no_option_is_refused(text: str) -> None:
    """Overrides start with two dashes."""
    with pytest.raises(ConfigError, match="where an option such as"):
        parse_overrides((text, "3"))


def test_an_option_is_no_value() -> None:
    """The option that has no value is named, not what comes after the next one."""
    with pytest.raises(ConfigError, match="--scratch: a value is missing"):
        parse_overrides(("--scratch", "--training.epochs", "2"))


class Terminal(io.StringIO):
    """A stream that says somebody is watching."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("environment", "drawn"),
    [({"TERM": "xterm"}, True), ({"TERM": "xterm", "CI": "1"}, False), ({"TERM": "dumb"}, False)],
)
def test_bars_are_drawn_on_a_terminal_only(
    here: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], drawn: bool
) -> None:
    """With CI set, and on a terminal that cannot redraw, come plain lines without control characters."""
    monkeypatch.delenv("CI", raising=False)
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    assert run_command(["train", "classwise.toml", "--run", "run"]) == 0
    text = screen.getvalue()
    assert "epoch 1/1" in text
    assert any(ord(character) < 32 and character != "\n" for character in text) == drawn
    log = Path("run/log.txt").read_text()
    assert not any(ord(character) < 32 and character != "\n" for character in log)


def test_a_pipe_gets_plain_lines(here: Path) -> None:
    """Without a terminal every line is whole and ends with a newline."""
    text = command("train", "classwise.toml", "--run", "run").ok().err
    assert text.endswith("\n")
    assert not any(ord(character) < 32 and character != "\n" for character in text)


def test_keys_can_be_asked_for_by_name() -> None:
    """A filter: the nearest where no key is named so, with a note on stderr, and an error where none is near."""
    assert command("keys", "optimizer.lr").ok().out.splitlines() == [
        "[optimizer]",
        "  lr  learning rate (default: 0.001)",
    ]
    assert command("keys", "training").ok().out.startswith("[training]\n  plan ")
    near = command("keys", "epochz").ok()
    assert "  epochs  passes over" in near.out
    assert near.err == "no key is named 'epochz'; shown are the nearest\n"
    assert "error: keys: found 'zzzzqq'" in command("keys", "zzzzqq").err


def test_help_names_further_arguments() -> None:
    """As the list of arguments below does."""
    for name in ("predict", "explain"):
        assert f"Usage: classwise {name} [OPTIONS] RUN SOURCE [MORE...]" in command(name, "--help").ok().out
    assert "Usage: classwise keys [NAME...]" in command("keys", "--help").ok().out
