"""The Hugging Face hub: a run's model as a repository with a model card, and back.

What is uploaded is a run directory with the files of run/bundle.py, so that nothing of the data and of this machine is
in it, and README.md. What is downloaded are these files alone, by name; `Run.open` then checks them as those of any
other run. The hub's client comes with timm.
"""

import contextlib
import json
import re
import tempfile
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HTTPError  # type: ignore[attr-defined]  # httpx's

from classwise.errors import ModelError, OutputError
from classwise.integrations.model_card import CardNotes, model_card
from classwise.own_parts.run_code import FOLDER as CODE
from classwise.run.bundle import BUNDLED, bundle, write_bundle
from classwise.run.own_code import Trust
from classwise.run.trained import Run

SCHEME = "hf://"
CARD = "README.md"
FILES = (*BUNDLED, CARD, f"{CODE}/*.py", f"{CODE}/manifest.json")
"""Patterns of what is uploaded and downloaded; nothing else is, whatever a repository holds."""
REPLACED = ("checkpoints/*", f"{CODE}/*")
"""What an earlier push left, and this one has not, goes."""
_ADDRESS = re.compile(r"(?:hf://)?(?P<repo>\w[\w.-]*/\w[\w.-]*?)(?:@(?P<revision>[^\s@]+))?")


def push_to_hub(
    run: Run | str | Path,
    repo: str,
    *,
    token: str | None = None,
    private: bool = True,
    revision: str | None = None,
    create_pr: bool = False,
    message: str = "Upload with classwise",
    license: str | None = None,
    dataset: str | None = None,
    tags: Sequence[str] = (),
    language: str | None = None,
    description: str = "",
    trust: Trust = (),
) -> str:
    """Upload a run's model with a model card to the repository `repo` (`owner/name`), and return the address of the
    commit, or of the pull request with `create_pr`.

    The repository is made if there is none. `private`: whether it may be seen by others; an existing public one is
    refused, unless `private=False`. `revision`: the branch (default: main). `license` (as the hub names it, such as
    `apache-2.0`), `dataset` (what the rows are), `tags`, `language` and `description` go into the card; what is not
    said is not claimed. `token`: of the hub (default: that of its client, HF_TOKEN or `hf auth login`). `trust`: as of
    `Run.open`, where `run` is a folder.

    Names of images, the split, predictions, the report and paths of this machine are not uploaded; the names of labels
    and columns are, and so is code of the run's own. `write_hub_folder` shows what would be. Raises OutputError for a
    repository that others could see, ModelError if the hub cannot be reached or refuses.
    """
    opened = run if isinstance(run, Run) else Run.open(run, trust)
    repo, in_address = parsed_address(repo)
    if in_address is not None:
        raise ModelError(
            f"repo: found a revision in {repo}@{in_address}; allowed: owner/name, and revision=..."
        )
    notes = CardNotes(license, dataset, tuple(tags), language, description)
    api = HfApi(token=token)
    with tempfile.TemporaryDirectory(prefix="classwise-hub-") as name, _told(repo):
        folder = Path(name)
        write_bundle(hub_files(opened, repo, notes), folder)
        api.create_repo(repo, private=private, exist_ok=True)
        # An existing repository keeps its visibility, whatever `private` says.
        if private and not api.model_info(repo).private:
            raise OutputError(
                f"{SCHEME}{repo} is public; private=False uploads to it, or make it private on the hub first"
            )
        commit = api.upload_folder(
            repo_id=repo,
            folder_path=folder,
            commit_message=message,
            revision=revision,
            create_pr=create_pr,
            allow_patterns=list(FILES),
            delete_patterns=list(REPLACED),
        )
    return str(commit.pr_url if create_pr else commit.commit_url)


def write_hub_folder(run: Run | str | Path, out: str | Path, repo: str = "owner/name", **notes: Any) -> Path:
    """Write what `push_to_hub` would upload to the folder `out`, empty or not there yet, and return it. `notes`:
    license, dataset, tags, language and description, as of `push_to_hub`. Raises OutputError."""
    folder = Path(out)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OutputError(f"{folder} already exists and is not overwritten; name another folder")
    opened = run if isinstance(run, Run) else Run.open(run)
    write_bundle(hub_files(opened, repo, CardNotes(**notes)), folder)
    return folder


def hub_files(run: Run, repo: str, notes: CardNotes) -> dict[str, bytes]:
    """The files to upload by their names in the repository. Raises OutputError where one of them holds a path of this
    machine."""
    files = bundle(run.folder)
    code = [name for name in files if name.startswith(f"{CODE}/") and name.endswith(".py")]
    card = model_card(
        repo,
        config=tomllib.loads(files["config.toml"].decode()),
        status=json.loads(files["status.json"]),
        metrics=json.loads(files["metrics.json"]),
        notes=notes,
        code=[name.partition("/")[2] for name in code],
    )
    files[CARD] = card.encode()
    _refuse_paths(files, run)
    return files


def from_hub(repo: str, *, revision: str | None = None, token: str | None = None, trust: Trust = ()) -> Run:
    """The run in the repository `repo`: `owner/name`, `owner/name@revision` or `hf://owner/name`. It predicts, exports
    and scores labeled tables; it cannot be resumed.

    `revision`: a branch, a tag or a commit (default: main), which `owner/name@revision` says as well. `trust`: as of
    `Run.open`: code in a repository is refused unless its digests are named. Raises ModelError if it cannot be had,
    CheckpointError if it holds no run or a damaged one, TrustError for code that is not trusted.
    """
    return Run.open(download(repo, revision, token), trust)


def download(repo: str, revision: str | None = None, token: str | None = None) -> Path:
    """The folder of the run in a repository, in the cache of the hub's client; see `from_hub`. What is in the cache is
    used where the hub cannot be reached. Raises ModelError."""
    repo, in_address = parsed_address(repo)
    if None not in (revision, in_address) and revision != in_address:
        raise ModelError(
            f"revision: found {revision!r} and {SCHEME}{repo}@{in_address}; allowed: one of them, or the same"
        )
    with _told(repo):
        folder = snapshot_download(
            repo, revision=revision or in_address, token=token, allow_patterns=list(FILES)
        )
    if not (Path(folder) / "checkpoints" / "best" / "manifest.json").is_file():
        raise ModelError(
            f"{SCHEME}{repo} holds no run of classwise: it has no checkpoints/best/manifest.json"
        )
    return Path(folder)


def parsed_address(address: str) -> tuple[str, str | None]:
    """`hf://owner/name@revision` as (`owner/name`, revision or None). Raises ModelError."""
    found = _ADDRESS.fullmatch(address)
    if not found:
        raise ModelError(f"found {address!r}; allowed: owner/name, or hf://owner/name@revision")
    return found["repo"], found["revision"]


@contextlib.contextmanager
def _told(repo: str) -> Iterator[None]:
    """Errors of the hub's client as ModelErrors, in one line."""
    try:
        yield
    except (HfHubHTTPError, HTTPError, OSError, ValueError, RuntimeError) as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        reason = " ".join(lines[:2])[:300] or type(error).__name__
        raise ModelError(f"{SCHEME}{repo}: {reason}") from error


def _refuse_paths(files: Mapping[str, bytes], run: Run) -> None:
    """Raise OutputError where a file holds a folder of this machine: nothing is known that writes one, and nobody can
    take back what was published."""
    data = tomllib.loads(run.folder.config.read_text(encoding="utf-8"))["data"]
    images = data["images"]
    folders = [str(Path.home()), str(run.path.resolve()), data["source"]]
    folders += [images] if isinstance(images, str) else images
    folders += [data[key] for key in ("valid", "test") if isinstance(data.get(key), str)]
    for folder in folders:
        for name, content in files.items():
            if len(Path(folder).parts) > 2 and not name.startswith(f"{CODE}/") and folder.encode() in content:
                raise OutputError(f"{name} would hold {folder}, a path of this machine; nothing was uploaded")
