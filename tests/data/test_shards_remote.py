"""Shards behind an address: a web server with range requests and, where moto and s3fs are installed, an S3 store."""

import http.server
import shutil
import threading
import urllib.parse
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from classwise.data.image_file import read_file
from classwise.data.remote import RemoteFile
from classwise.data.shard_index import AT, SIZE
from classwise.data.shards import forget_opened, open_shard
from classwise.data.sources import Samples, read_source
from classwise.errors import DataError
from tests.faults.forked import Child, free_port, rank_environment, start
from tests.helpers.scenes import FORKS, class_folder, command, write_config

FORMATS = ("parquet", "tar", "zip")
SAME = ("checkpoints/best/model.safetensors", "checkpoints/last/training.safetensors", "predictions.csv")
# Connections of a file system that is no longer used are closed when they are collected.
pytestmark = [pytest.mark.filterwarnings("ignore::ResourceWarning"), FORKS]


class RangeServer(http.server.ThreadingHTTPServer):
    """Files of a folder by HTTP on the loopback. `fetched`: the bytes that were sent, and `ranges` the parts of files
    that were asked for. `cuts`: every answer is cut short, `cuts_next`: the next one. `version`: the header that
    says a file's version."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder = folder
        self.fetched = 0
        self.ranges = Counter[tuple[str, int, int]]()
        self.cuts = False
        self.cuts_next = 0
        self.version = "ETag"
        self.address = f"http://127.0.0.1:{self.server_address[1]}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: RangeServer

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._head()

    def do_GET(self) -> None:
        self.wfile.write(self._head())

    def _head(self) -> bytes:
        path = self.server.folder / urllib.parse.unquote(self.path.lstrip("/"))
        if not path.is_file():
            self.send_error(404)
            return b""
        data = path.read_bytes()
        wanted = self.headers.get("Range")
        first, last = 0, len(data) - 1
        if wanted:
            begin, end = wanted.removeprefix("bytes=").split("-")
            first, last = int(begin), min(int(end or last), last)
        body = data[first : last + 1]
        if self.server.cuts or (self.server.cuts_next and self.command == "GET"):
            self.server.cuts_next = 0
            body = body[: len(body) // 2]
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Accept-Ranges", "bytes")
        if self.server.version:
            self.send_header(self.server.version, f'"{path.stat().st_mtime_ns}"')
        if wanted:
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
        self.end_headers()
        if self.command == "GET":
            self.server.fetched += len(body)
            self.server.ranges[path.name, first, len(body)] += 1
        return body


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes as files and as shards of each kind, of a few images each."""
    pytest.importorskip("aiohttp")
    folder = tmp_path_factory.mktemp("remote")
    class_folder(folder / "photos", {"a": 9, "b": 7})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("classwise.compose.packing.MEGABYTE", 10_000)
        for kind in FORMATS:
            command("pack", folder / "photos", folder / kind, "--format", kind, "--shard-mb", 1).ok()
    command("train", write_config(folder, data__source="photos"), "--run", folder / "run").ok()
    return folder


@pytest.fixture
def server(folder: Path) -> Iterator[RangeServer]:
    """The folder by HTTP; what is known of shards is forgotten."""
    server = RangeServer(folder)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    forget_opened()
    yield server
    forget_opened()
    server.shutdown()
    server.server_close()


def pattern_of(folder: Path, kind: str) -> str:
    """`images-{00000..00003}-of-00004.tar`, of the shards that there are: a web server lists no files."""
    count = len(list((folder / kind).iterdir()))
    assert count > 1
    return f"{kind}/images-{{00000..{count - 1:05d}}}-of-{count:05d}.{kind}"


def source_of(address: str | Path) -> Samples:
    return read_source(Path(address), Path(), "path", None, None)


def all_bytes(samples: Samples) -> list[bytes]:
    return [read_file(path, 10**8, samples.allowed_folders)[1] for path in samples.paths]


@pytest.mark.parametrize("kind", FORMATS)
def test_shards_by_http_are_those_on_the_disk(folder: Path, server: RangeServer, kind: str) -> None:
    """The same rows and bytes; of Parquet no image is fetched for its label."""
    samples = source_of(f"{server.address}/{pattern_of(folder, kind)}")
    fetched = server.fetched
    files = source_of(folder / "photos")
    assert samples.ids == files.ids
    assert samples.frame.equals(files.frame)
    size = sum(path.stat().st_size for path in (folder / kind).iterdir())
    assert kind == "tar" or fetched < size / 2
    assert all_bytes(samples) == all_bytes(files)

    # The index is remembered, so that of a second look only images are fetched.
    forget_opened()
    server.fetched = 0
    again = source_of(f"{server.address}/{pattern_of(folder, kind)}")
    assert server.fetched == 0
    assert all_bytes(again) == all_bytes(files)
    assert server.fetched < size + 2000 * len(files)


@pytest.mark.parametrize(
    "kind", ["tar", *(pytest.param(kind, marks=pytest.mark.full) for kind in ("parquet", "zip"))]
)
def test_training_by_http_gives_the_same_bytes(
    folder: Path, server: RangeServer, kind: str, tmp_path: Path
) -> None:
    """With workers that fetch the images themselves, each by connections of its own."""
    source = f"{server.address}/{pattern_of(folder, kind)}"
    config = write_config(tmp_path, data__source=source, data__cache="off", data__workers=2)
    command("train", config, "--run", tmp_path / "run").ok()
    for file in SAME:
        assert (tmp_path / "run" / file).read_bytes() == (folder / "run" / file).read_bytes()
    command("predict", tmp_path / "run", source, "--out", tmp_path / "remote.csv").ok()
    command("predict", tmp_path / "run", folder / kind, "--out", tmp_path / "here.csv").ok()
    assert (tmp_path / "remote.csv").read_bytes() == (tmp_path / "here.csv").read_bytes()


def test_two_machines_fetch_each_its_own_share(folder: Path, server: RangeServer, tmp_path: Path) -> None:
    """Two processes, each a machine of its own with its own caches: together they fetch every training
    image as often as one does alone, and the run is that of two processes on the files."""

    def trained(name: str, source: str, is_one_machine: bool) -> None:
        config = write_config(tmp_path, data__source=source, data__cache="off", training__epochs=1)
        port, ranks = free_port(), list[Child]()
        for rank in range(2):
            environment = rank_environment(rank, 2, port) | {
                "XDG_CACHE_HOME": str(tmp_path / name / f"cache-{rank}")
            }
            if not is_one_machine:
                environment |= {"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
            files = tmp_path / name / str(rank)
            group = ranks[0].group if ranks else 0
            arguments = ["train", config, "--run", tmp_path / name / "run"]
            ranks.append(start(files, arguments, environment=environment, group=group))
        assert [rank.wait() for rank in ranks] == [0, 0], ranks[0].said

    def counts() -> dict[tuple[str, int, int], int]:
        """How often each image was fetched since the last time."""
        found = {
            (path.name, at, size): server.ranges[path.name, at, size]
            for path in (folder / "tar").iterdir()
            for at, size in zip(*open_shard(path).locations[[AT, SIZE]].tolist(), strict=True)
        }
        server.ranges.clear()
        return found

    source = f"{server.address}/{pattern_of(folder, 'tar')}"
    config = write_config(tmp_path, data__source=source, data__cache="off", training__epochs=1)
    command("train", config, "--run", tmp_path / "alone").ok()
    of_one = counts()
    trained("remote", source, is_one_machine=False)
    of_two = counts()
    # Were the check divided as on one disk, all 16 would be fetched once more.
    more = [of_two[image] - of_one[image] for image in of_one]
    assert sorted(more)[:12] == [0] * 12
    assert max(more) <= 1
    trained("files", str(folder / "photos"), is_one_machine=True)
    for file in SAME:
        assert (tmp_path / "remote/run" / file).read_bytes() == (tmp_path / "files/run" / file).read_bytes()


def test_what_a_server_cannot_do_is_said(
    folder: Path, server: RangeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shard that is missing, one that changes, an answer that is cut short, an unknown protocol. A request that fails
    once is tried again."""
    monkeypatch.setattr("classwise.data.remote.WAITS", (0.0,))
    shutil.copytree(folder / "tar", folder / "other")
    first = min((folder / "other").iterdir())
    address = f"{server.address}/other/{first.name}"
    samples = source_of(address)
    with pytest.raises(DataError, match=r"none\.tar: this shard cannot be opened"):
        source_of(f"{server.address}/none.tar")
    before = all_bytes(samples)
    server.cuts_next = 1
    assert all_bytes(samples) == before
    server.cuts = True
    with pytest.raises(DataError, match=r"\.tar: (found|reading failed)"):
        all_bytes(samples)
    server.cuts = False
    first.write_bytes(first.read_bytes() + bytes(512))
    forget_opened()
    with pytest.raises(DataError, match="this shard has changed since its rows were read"):
        all_bytes(samples)
    for address, what in {
        "nowhere://a/b.tar": "found the protocol 'nowhere'",
        "file:///tmp/b.tar": "found the protocol 'file'",
        f"{server.address}/a.csv": r"found shards with \.csv; allowed",
    }.items():
        with pytest.raises(DataError, match=what):
            source_of(address)


@pytest.mark.parametrize("version", ["ETag", "Last-Modified", ""])
def test_another_shard_of_the_same_size(
    folder: Path, server: RangeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    """It is noticed by the version that the server says; without any, a process that begins anew reads what is there,
    and not by the index of the earlier one."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(server, "folder", tmp_path)
    server.version = version
    one = min((folder / "tar").iterdir()).read_bytes()
    blocks = 1 + -(
        -int(one[124:135], 8) // 512
    )  # the first image is made the last one: its header and its bytes
    first, rest = one[: 512 * blocks], one[512 * blocks :]
    (tmp_path / "a.tar").write_bytes(one)
    samples = source_of(f"{server.address}/a.tar")
    before = dict(zip(samples.ids, all_bytes(samples), strict=True))

    end = len(rest.rstrip(b"\0")) // 512 * 512 + 512
    (tmp_path / "a.tar").write_bytes(rest[:end] + first + rest[end:])
    forget_opened()
    if version:
        with pytest.raises(DataError, match="this shard has changed since its rows were read"):
            all_bytes(samples)
    again = source_of(f"{server.address}/a.tar")
    assert dict(zip(again.ids, all_bytes(again), strict=True)) == before


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what installs it."""
    import fsspec

    def missing(protocol: str) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec, "filesystem", missing)
    with pytest.raises(Exception, match=r'pip install "classwise\[remote\]"'):
        RemoteFile("s3://bucket/a.tar")


@pytest.mark.parametrize("kind", FORMATS)
def test_shards_in_s3(folder: Path, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a pattern, which the store lists; the run is that on the files."""
    s3fs = pytest.importorskip("s3fs")
    moto = pytest.importorskip("moto.server")
    import boto3

    store = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    store.start()
    s3fs.S3FileSystem.clear_instance_cache()  # it would go on with the store of the test before
    try:
        address = "http://{}:{}".format(*store.get_host_and_port())
        for name, value in {
            "AWS_ENDPOINT_URL": address,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
        }.items():
            monkeypatch.setenv(name, value)
        client = boto3.client("s3", endpoint_url=address)
        client.create_bucket(Bucket="data")
        for path in (folder / kind).iterdir():
            client.upload_file(str(path), "data", f"{kind}/{path.name}")
        source = f"s3://data/{kind}/images-*.{kind}"
        samples, files = source_of(source), source_of(folder / "photos")
        assert samples.ids == files.ids
        assert all_bytes(samples) == all_bytes(files)

        config = write_config(tmp_path, data__source=source, data__cache="off", data__workers=2)
        command("train", config, "--run", tmp_path / "run").ok()
        for file in SAME:
            assert (tmp_path / "run" / file).read_bytes() == (folder / "run" / file).read_bytes()

        # Another object under the same name, between the rows and the images.
        client.upload_file(str(folder / "photos/a/00.png"), "data", f"{kind}/{path.name}")
        forget_opened()
        with pytest.raises(DataError, match="this shard has changed since its rows were read"):
            all_bytes(samples)
    finally:
        forget_opened()
        store.stop()
