"""Hostile run directories, paths that leave the data folder, and links swapped in a race: nothing is run, nothing
outside is read."""

import json
import os
import pickle
import shutil
import sys
import threading
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from classwise.data.cache import default_base
from tests.faults import trials
from tests.faults.counting import Count, Figure
from tests.faults.kills import count_of

Change = Callable[[Path], None]
# Where programs keep what they can make again, decoded images of ours among it.
CACHES = (Path("/root/.cache"), default_base())


class Watchdog:
    """An audit hook, which cannot be taken off again: what this process does that it should not."""

    def __init__(self) -> None:
        self.inside: list[str] = []
        self.outside: str = ""
        self.found: list[str] = []
        self.opened: list[str] = []
        sys.addaudithook(self._hook)

    def begin(self, inside: list[Path], outside: Path | None = None) -> None:
        """From now on: writing belongs below `inside`, and nothing below `outside` may be opened."""
        self.inside = [os.path.realpath(path) for path in inside]
        self.outside = os.path.realpath(outside) if outside else ""
        self.found.clear()

    def end(self) -> list[str]:
        """What was found."""
        self.inside = []
        return list(self.found)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.inside:
            return
        if event in (
            "pickle.find_class",
            "os.system",
            "os.exec",
            "os.posix_spawn",
            "subprocess.Popen",
            "socket.connect",
        ):
            self.found.append(f"{event} {arguments!r:.80}")
        elif event == "open" and isinstance(arguments[0], str | bytes):
            path = os.path.realpath(os.fsdecode(arguments[0]))
            writes = arguments[2] and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            if self.outside and path.startswith(self.outside):
                self.found.append(f"opened {path}")
            ours = any(path.startswith(folder) for folder in [*self.inside, "/dev/"])
            if writes and not ours and "__pycache__" not in path:  # Python's own, of modules that it imports
                self.found.append(f"wrote {path}")


class Payload:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch '{self.canary}'",)


def hostile_runs(most: int = 0) -> dict[str, Any]:
    """Run directories that somebody has tampered with, whose hashes fit; every command that reads one."""
    trials.no_core_files()
    count, watch = Count(), Watchdog()
    folder = trials.scratch_folder()
    from tests.helpers.scenes import command, plain_table, write_config

    plain_table(folder)
    config = write_config(folder, training__epochs=1, report={"baselines": False, "resamples": 0})
    command("train", config, "--run", folder / "good").ok()
    (folder / "template.csv").write_text("id,label\n00.png,\n01.png,\n")
    changes = _changes(folder)
    names = list(changes)[:: max(1, len(changes) // most)] if most else list(changes)
    for name in names:
        run, canary = folder / "run", folder / "canary"
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(folder / "good", run)
        changes[name](run)
        for verb in ("resume", "evaluate", "predict", "submit", "report"):
            _unfinished(run) if verb == "resume" else None
            more: list[object] = {
                "predict": [folder / "images", "--out", run / "p.csv", "--force"],
                "submit": [
                    *(folder / "template.csv", "--images", folder / "images"),
                    *("--out", run / "s.csv", "--force"),
                ],
            }.get(verb, [])
            watch.begin([run, folder / "images", Path("/tmp/torchinductor_root"), *CACHES])
            problem = ""
            try:
                done = command(verb, run, *more)
                if done.code not in (0, 1):
                    problem = f"exit {done.code}"
            except BaseException as error:
                problem = f"{type(error).__name__}: {error}"
            found = watch.end()
            if canary.exists():
                problem = "the payload has run"
                canary.unlink()
            problem = problem or "; ".join(found[:3])
            count.add(not problem, verb, f"{name}: {problem}")
    shutil.rmtree(folder, ignore_errors=True)
    return count.as_dict()


def unpickled() -> dict[str, bool]:
    """The sabotage: weights that are read as torch's own files are."""
    import torch

    from classwise.run import checkpoint

    watch, folder = Watchdog(), trials.scratch_folder()
    from tests.helpers.scenes import command, plain_table, write_config

    plain_table(folder)
    config = write_config(folder, training__epochs=1, report={"baselines": False, "resamples": 0})
    command("train", config, "--run", folder / "run").ok()
    torch.save(Payload(folder / "canary"), folder / "torch.pt")
    for place in ("best", "last"):
        _signed(folder / "run/checkpoints" / place, "model.safetensors", (folder / "torch.pt").read_bytes())
    checkpoint.load = lambda data: torch.load(folder / "torch.pt", weights_only=False)  # type: ignore[assignment]
    watch.begin([folder])
    command("evaluate", folder / "run")
    found = watch.end()
    ran = (folder / "canary").exists()
    shutil.rmtree(folder, ignore_errors=True)
    return {"the payload has run": ran, "it was seen": any("find_class" in event for event in found)}


def _unfinished(run: Path) -> None:
    path = run / "status.json"
    try:
        status = json.loads(path.read_text())
        path.write_text(json.dumps(status | {"state": "running"}))
    except (OSError, ValueError, TypeError):
        pass


def _signed(place: Path, name: str, data: bytes) -> None:
    """Put a file into a checkpoint and make its manifest fit, as anybody can who may write there."""
    from classwise.files import json_text, sha256

    (place / name).write_bytes(data)
    manifest = json.loads((place / "manifest.json").read_text())
    manifest.pop("sha256")
    manifest["files"][name] = {"size": len(data), "sha256": sha256(data)}
    signed = manifest | {"sha256": sha256(json_text(manifest).encode())}
    (place / "manifest.json").write_text(json_text(signed))


def _changes(folder: Path) -> dict[str, Change]:
    """What is done to a run, by name."""
    import torch

    canary = folder / "canary"
    plain = pickle.dumps(Payload(canary))
    torch.save(Payload(canary), folder / "torch.pt")
    torch.save({"w": torch.zeros(2)}, folder / "tensors.pt")
    with zipfile.ZipFile(folder / "zip.pt", "w") as archive:
        archive.writestr("archive/data.pkl", plain)
    blobs = {
        "a pickle": plain,
        "a torch file": (folder / "torch.pt").read_bytes(),
        "tensors of torch": (folder / "tensors.pt").read_bytes(),
        "a zip": (folder / "zip.pt").read_bytes(),
        "nothing": b"",
        "a long header": (2**62).to_bytes(8, "little") + b"{}",
        "no JSON": (4).to_bytes(8, "little") + b"{{{{",
    }
    changes: dict[str, Change] = {}
    for what, data in blobs.items():
        for name in ("model.safetensors", "training.safetensors", "state.json"):

            def put(run: Path, name: str = name, data: bytes = data) -> None:
                for place in ("best", "last"):
                    _signed(run / "checkpoints" / place, name, data)

            changes[f"{name}: {what}"] = put

        def manifest(run: Path, data: bytes = data) -> None:
            for place in ("best", "last"):
                (run / "checkpoints" / place / "manifest.json").write_bytes(data)

        changes[f"manifest.json: {what}"] = manifest
        for name in (
            "config.toml",
            "status.json",
            "split.csv",
            "metrics.json",
            "history.jsonl",
            "predictions.csv",
        ):
            changes[f"{name}: {what}"] = lambda run, name=name, data=data: (
                (run / name).write_bytes(data) and None
            )

    def state(edit: Callable[[dict[str, Any]], None]) -> Change:
        def change(run: Path) -> None:
            for place in ("best", "last"):
                path = run / "checkpoints" / place
                tree = json.loads((path / "state.json").read_text())
                edit(tree)
                _signed(path, "state.json", json.dumps(tree).encode())

        return change

    def at(*keys: str, value: Any) -> Callable[[dict[str, Any]], None]:
        def edit(tree: dict[str, Any]) -> None:
            here: Any = tree
            for key in keys[:-1]:
                here = here[key]
            here[keys[-1]] = value

        return edit

    values: dict[str, Any] = {
        "null": None,
        "a list": [],
        "a table": {},
        "text": "x",
        "a huge number": 10**400,
        "a path": "/etc/passwd",
        "minus one": -1,
        "true": True,
        "a hub name": "hf-hub:timm/resnet18",
        "a folder's name": "local-dir:/etc",
        "an import": "os.system",
        "deep": json.loads("[" * 200 + "]" * 200),
    }
    places = [
        ("metadata", "model", "backbone"),
        ("metadata", "model", "image_size"),
        ("metadata", "model", "heads"),
        ("metadata", "model", "mean"),
        ("metadata", "targets"),
        ("metadata", "heads"),
        ("metadata", "precision"),
        ("metadata", "micro_batches_per_update"),
        ("progress", "update"),
        ("progress", "history"),
        ("training", "optimizer"),
        ("training", "model"),
        ("training", "schedule"),
        ("metadata", "joint"),
    ]
    for place in places:
        for what, value in values.items():
            changes[f"{'.'.join(place)}: {what}"] = state(at(*place, value=value))
    for what in ("load", "hub", "save", "__dict__", "compile", "float33"):
        changes[f"$dtype: {what}"] = state(at("training", "optimizer", value={"$dtype": what}))
    changes["$tensor: another"] = state(at("training", "optimizer", value={"$tensor": "../../etc"}))
    changes["a giant head"] = state(at("metadata", "model", "heads", value={"label": 10**9}))
    changes["giant images"] = state(at("metadata", "model", "image_size", value=[10**6, 10**6]))
    return changes


def _escapes(folder: Path, secret: Path) -> dict[str, tuple[str, Change]]:
    """Paths in a table, by name: the cell, and what has to be there for it."""
    up = os.path.relpath(secret, folder / "images")
    none: Change = lambda images: None  # noqa: E731
    found: dict[str, tuple[str, Change]] = {}
    for i, cell in enumerate(
        [
            str(secret),
            up,
            f"a/../{up}",
            f"./{up}",
            f"a//../{up}",
            f"images/../{up}",
            f"{up}/",
            f"{up}/.",
            "..",
            ".",
            "",
            "/",
            "//",
            "~",
            "~root",
            f"~/{up}",
            f"\\\\{up}",
            up.replace("/", "\\"),
            f"{up}\0.png",
            "\0",
            f"file://{secret}",
            f"/proc/self/root{secret}",
            f"/proc/self/cwd/{up}",
            f"../{folder.name}/../{secret.name}",
            f" {secret}",
            f"{secret} ",
            "a" * 5000,
            "a/" * 2000 + "x.png",
            up.replace("..", "\u2025"),
            up.replace("/", "\u2215"),
            up.replace("..", "%2e%2e"),
            f"images/{up}",
            f"../images/../{secret.name}",
            "/dev/zero",
            "/dev/stdin",
            "/proc/self/mem",
            "/etc/passwd",
        ]
    ):
        found[f"text {i}: {cell[:40]!r}"] = (cell, none)

    def link(name: str, target: str) -> Change:
        return lambda images: (images / name).symlink_to(target)

    def chain(images: Path) -> None:
        for i in range(8):
            (images / f"c{i}.png").symlink_to(f"c{i + 1}.png")
        (images / "c8.png").symlink_to(secret)

    def nested(images: Path) -> None:
        (images / "x").mkdir()
        (images / "x" / "y").symlink_to(secret.parent)

    links: dict[str, tuple[str, Change]] = {
        "a link to the file": ("l.png", link("l.png", str(secret))),
        "a relative link": ("l.png", link("l.png", up)),
        "a link to its folder": (f"d/{secret.name}", link("d", str(secret.parent))),
        "a link to the root": (f"r{secret}", link("r", "/")),
        "a chain of links": ("c0.png", chain),
        "a link below a folder": (f"x/y/{secret.name}", nested),
        "a loop": ("o.png", link("o.png", "o.png")),
        "a loose link": ("n.png", link("n.png", str(secret) + "nothing")),
        "a link to a device": ("z.png", link("z.png", "/dev/zero")),
        "a link through proc": ("p.png", link("p.png", f"/proc/self/root{secret}")),
    }
    return found | links


def escapes(most: int = 0) -> dict[str, Any]:
    """Each of the paths, in the table of a config, of a validation set, of `evaluate`, and as a template's id."""
    count, watch = Count(), Watchdog()
    folder = trials.scratch_folder()
    outside = trials.scratch_folder()
    from tests.helpers.scenes import command, draw, plain_table, write_config

    secret = outside / "secret.png"
    draw(secret, 0, 99)
    rows = plain_table(folder)
    config = write_config(folder, training__epochs=1, report={"baselines": False, "resamples": 0})
    command("train", config, "--run", folder / "good").ok()
    shutil.copytree(folder / "images", folder / "clean")
    cases = _escapes(folder, secret)
    for name in list(cases)[:: max(1, len(cases) // most)] if most else list(cases):
        cell, change = cases[name]
        for use in ("data.source", "data.valid", "evaluate", "predict", "submit"):
            shutil.rmtree(folder / "images")
            shutil.copytree(folder / "clean", folder / "images")
            change(folder / "images")
            _table(
                folder / "bad.csv", [*([row[0].removeprefix("images/"), row[1]] for row in rows), [cell, "a"]]
            )
            arguments: list[object] = {
                "data.source": [
                    "train",
                    config,
                    "--data.source",
                    folder / "bad.csv",
                    "--run",
                    folder / "new",
                ],
                "data.valid": ["train", config, "--data.valid", folder / "bad.csv", "--run", folder / "new"],
                "evaluate": ["evaluate", folder / "good", folder / "bad.csv"],
                "predict": [
                    "predict",
                    folder / "good",
                    folder / "bad.csv",
                    "--out",
                    folder / "p.csv",
                    "--force",
                ],
                "submit": [
                    "submit",
                    folder / "good",
                    folder / "bad.csv",
                    "--out",
                    folder / "s.csv",
                    "--force",
                ],
            }[use]
            arguments += [
                "--images" if use in ("evaluate", "predict", "submit") else "--data.images",
                folder / "images",
            ]
            watch.begin([folder, *CACHES], outside)
            try:
                done = command(*arguments)
                problem = "" if done.code == 1 else f"exit {done.code}"
            except BaseException as error:
                problem = f"{type(error).__name__}: {error}"
            problem = "; ".join(watch.end()[:3]) or problem
            count.add(not problem, use, f"{name}: {problem}")
            shutil.rmtree(folder / "new", ignore_errors=True)
    for path in (folder, outside):
        shutil.rmtree(path, ignore_errors=True)
    return count.as_dict()


def _table(path: Path, rows: list[list[str]]) -> None:
    from tests.helpers.scenes import write_csv

    write_csv(path, ("path", "label"), rows)


def race(seconds: float = 20.0, by_name: bool = False) -> dict[str, Any]:
    """A file and a folder are swapped for links to outside and back while images are read. `by_name`: the sabotage
    that checks where the name leads, and then opens it."""
    from classwise.data import images
    from classwise.errors import ImageError
    from tests.helpers.scenes import draw

    count = Count()
    folder, outside = trials.scratch_folder(), trials.scratch_folder()
    draw(folder / "real" / "x.png", 0, 1)
    draw(outside / "x.png", 1, 2)
    ours, theirs = (images.read_image(path) for path in (folder / "real/x.png", outside / "x.png"))
    stop = threading.Event()
    swaps = 0

    def swap() -> None:
        nonlocal swaps
        while not stop.is_set():
            for target in (folder / "real", outside):
                (folder / "new").symlink_to(target)
                (folder / "new").replace(folder / "d")
                swaps += 1

    thread = threading.Thread(target=swap)
    thread.start()
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            if by_name:
                if not os.path.realpath(folder / "d/x.png").startswith(str(folder)):
                    raise ImageError("x", "outside")
                found = images.read_image(folder / "d/x.png")
            else:
                found = images.read_image(folder / "d/x.png", root=folder)
        except ImageError as error:
            count.add(True, "refused" if "outside" in error.reason else "not there")
            continue
        count.add((found == ours).all() and not (found == theirs).all(), "read", "an image from outside")
    stop.set()
    thread.join()
    count.notes["swaps"] = swaps
    for path in (folder, outside):
        shutil.rmtree(path, ignore_errors=True)
    return count.as_dict()


FIGURES = [
    Figure(
        14,
        "hostile-runs",
        "run directories with hostile contents whose hashes fit, each read by five commands under an audit hook",
        lambda: count_of(trials.in_a_fresh_process("paths", "hostile_runs")),
    ),
    Figure(
        14,
        "path-escapes",
        "paths and links that lead out of the data folder, in five places where paths are taken",
        lambda: count_of(trials.in_a_fresh_process("paths", "escapes")),
    ),
    Figure(
        14,
        "link-race",
        "images read while their folder is swapped for a link to outside and back",
        lambda: count_of(trials.in_a_fresh_process("paths", "race")),
    ),
]
