"""Shards: which images are in them, one at a time, and what is wrong with those that are damaged."""

import contextlib
import datetime
import io
import json
import os
import pickle
import shutil
import tarfile
import zipfile
from pathlib import Path

import cv2
import numpy as np
import polars as pl
import pytest

from classwise.data import shards as shards_module
from classwise.data.dataset import ImageDataset
from classwise.data.image_file import Unreadable, read_file
from classwise.data.images import read_image
from classwise.data.pack_shards import pack
from classwise.data.parquet_pages import runs
from classwise.data.parquet_shards import parquet_rows
from classwise.data.row_paths import RowPaths
from classwise.data.shard_files import LocalFile
from classwise.data.shard_index import remember, remembered_locations, remembered_rows
from classwise.data.shard_source import is_sharded, parts_of, read_shards, shard_paths
from classwise.data.shards import forget_opened, member_of, open_shard
from classwise.data.sources import read_source
from classwise.errors import DataError, ImageError, OutputError
from classwise.suggest.config import look_at

FORMATS = ("parquet", "tar", "zip")
MANY_PIXELS = 10**8


def source_of(folder: Path, **columns):
    return read_source(folder, folder, "path", None, None, **columns)


def png(seed: int, size: int = 8) -> bytes:
    """A small image, another one for each seed."""
    image = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    return cv2.imencode(".png", image)[1].tobytes()


def packed(folder: Path, out: Path, kind: str, shard_bytes: int = 10**6) -> Path:
    pack(source_of(folder), "path", out, kind, shard_bytes)
    return out


def all_bytes(samples) -> list[bytes]:
    """The images' bytes, read as a run reads them."""
    return [read_file(path, MANY_PIXELS, samples.allowed_folders)[1] for path in samples.paths]


@pytest.fixture(autouse=True)
def quick_disks(monkeypatch):
    """Hundreds of files that nobody needs after a power cut."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


@pytest.fixture
def photos(tmp_path, make_images) -> Path:
    """Two classes with names in two scripts."""
    make_images(tmp_path / "photos", {"cat": 7, "마스크 착용": 5})
    return tmp_path / "photos"


def write_tar(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return path


def write_zip(path: Path, files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def write_parquet(path: Path, images: list[bytes | None], paths: list[str | None], **columns) -> Path:
    """A shard by polars."""
    structs = [
        None if data is None else {"bytes": data, "path": name}
        for data, name in zip(images, paths, strict=True)
    ]
    image = pl.Series("image", structs, dtype=pl.Struct({"bytes": pl.Binary, "path": pl.String}))
    pl.DataFrame([image]).with_columns(**{k: pl.Series(v) for k, v in columns.items()}).write_parquet(path)
    return path


# --- packing ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("shard_bytes", [1, 3000, 10**6])
def test_what_is_packed_is_the_same_source(photos, tmp_path, kind, shard_bytes):
    """The same ids, columns and bytes in the same order, from one shard or from many."""
    files = source_of(photos)
    shards = source_of(packed(photos, tmp_path / "out", kind, shard_bytes))
    assert shards.ids == files.ids
    assert shards.frame.equals(files.frame)
    assert all_bytes(shards) == all_bytes(files)
    count = len(list((tmp_path / "out").iterdir()))
    assert count == (12 if shard_bytes == 1 else 1) or 1 < count < 12


@pytest.mark.parametrize("kind", FORMATS)
def test_the_same_rows_are_the_same_shards(photos, tmp_path, kind):
    """Byte for byte, wherever and whenever they are packed, also from shards of another kind."""
    first = packed(photos, tmp_path / "first", kind)
    for image in photos.rglob("*.png"):
        os.utime(image, (1, 1))
    again = packed(photos, tmp_path / "again", kind)
    other = packed(photos, tmp_path / "other", "tar" if kind == "zip" else "zip")
    from_other = packed(other, tmp_path / "from-other", kind)
    data = [next(folder.iterdir()).read_bytes() for folder in (first, again, from_other)]
    assert data[0] == data[1] == data[2]


@pytest.mark.parametrize("kind", FORMATS)
def test_every_column_of_a_table_is_packed(tmp_path, make_images, make_table, kind):
    """Quotes, empty cells, and columns that are called as ours are or as one within another: all come back, under the
    paths of the table."""
    names = make_images(tmp_path / "photos", {"a": 3})
    rows = [
        {"path": name, "image": f"n {k}", "label": ["x", "", 'say "hi", so'][k], "face.bytes": f"{k}"}
        for k, name in enumerate(names)
    ]
    table = make_table(tmp_path / "samples.csv", rows)
    files = read_source(table, tmp_path / "photos", "path", None, None)
    pack(files, "path", tmp_path / "out", kind, 10**6)
    shards = source_of(tmp_path / "out")
    assert shards.frame.select(files.frame.columns).equals(files.frame)
    assert shards.ids == files.ids
    assert all_bytes(shards) == all_bytes(files)


def test_a_packed_parquet_file_says_what_it_holds(photos, tmp_path):
    """The metadata by which `datasets` knows a column of images, and no statistics, which would repeat the images."""
    (shard,) = packed(photos, tmp_path / "out", "parquet").iterdir()
    features = json.loads(pl.read_parquet_metadata(shard)["huggingface"])["info"]["features"]
    assert features == {"image": {"_type": "Image"}, "label": {"dtype": "string", "_type": "Value"}}
    images = sum(path.stat().st_size for path in photos.rglob("*.png"))
    assert shard.stat().st_size < images + 4000
    table = pl.read_parquet(shard)
    assert table["image"].struct.field("path").to_list() == list(source_of(photos).ids)


def test_packing_leaves_nothing_half_done(photos, tmp_path):
    """A bad image stops it; then there is no folder, nor a temporary one. What is there already is kept."""
    bad = photos / "cat" / "000.png"
    bad.write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"000\.png: not an image"):
        packed(photos, tmp_path / "out", "tar")
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]
    bad.write_bytes(png(0))
    packed(photos, tmp_path / "out", "tar")
    with pytest.raises(OutputError, match="is there already; it is kept"):
        packed(photos, tmp_path / "out", "tar")
    with pytest.raises(OutputError, match="found 'rar'; allowed: parquet, tar, zip"):
        packed(photos, tmp_path / "other", "rar")


def test_packing_into_the_current_folder(photos, tmp_path, monkeypatch):
    """Which has no name of its own; shards of what is in another one."""
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    packed(photos, Path(), "tar")
    assert source_of(tmp_path / "empty").ids == source_of(photos).ids
    assert {path.name for path in tmp_path.iterdir()} == {"photos", "empty"}


def test_a_zip_gets_no_path_that_leads_out(tmp_path, make_table):
    """It would be written outside of the folder into which somebody unpacks it; a tar has names of its own."""
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "a.png").write_bytes(png(0))
    table = make_table(tmp_path / "samples.csv", [{"path": "../a.png", "label": "x"}])
    samples = read_source(table, [tmp_path / "deep" / "er", tmp_path / "deep"], "path", None, None)
    with pytest.raises(DataError, match=r"row 1: the path '\.\./a\.png' cannot be a name in a zip"):
        pack(samples, "path", tmp_path / "zip", "zip", 10**6)
    pack(samples, "path", tmp_path / "tar", "tar", 10**6)
    (shard,) = (tmp_path / "tar").iterdir()
    with tarfile.open(shard) as archive:
        assert archive.getnames() == ["00000000.png", "00000000.json"]
    assert source_of(tmp_path / "tar").ids == ("../a.png",)


# --- Parquet of other writers -------------------------------------------------------------------------------


@pytest.mark.parametrize("compression", ["none", "snappy", "gzip", "brotli", "zstd", "lz4"])
@pytest.mark.parametrize("use_dictionary", [True, False])
@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_parquet_by_arrow(tmp_path, compression, use_dictionary, version):
    """Every compression, both versions of pages, with and without a dictionary, several row groups and pages, repeated
    images, and rows without one."""
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    images = [png(k % 7, size=8 + k % 5) for k in range(50)]
    images[3] = images[31] = None
    rows = [None if data is None else {"bytes": data, "path": f"{k}.png"} for k, data in enumerate(images)]
    struct = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    table = pa.table({"image": pa.array(rows, struct), "label": [k % 3 for k in range(50)]})
    parquet.write_table(
        table,
        tmp_path / "a.parquet",
        compression=compression,
        use_dictionary=use_dictionary,
        data_page_version=version,
        row_group_size=20,
        data_page_size=500,
        write_batch_size=3,
    )
    samples = source_of(tmp_path / "a.parquet")
    assert samples.frame["label"].to_list() == [str(k % 3) for k in range(50)]
    for row, data in enumerate(images):
        if data is None:
            with pytest.raises(Unreadable, match="the row has no image"):
                read_file(samples.paths[row], MANY_PIXELS, samples.allowed_folders)
        else:
            assert read_file(samples.paths[row], MANY_PIXELS, samples.allowed_folders)[1] == data


def test_class_labels_are_their_names(tmp_path):
    """`datasets` writes numbers, and their names beside them; -1 is no label."""
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    features = {"image": {"_type": "Image"}, "label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}
    rows = [{"bytes": png(k), "path": None} for k in range(3)]
    table = pa.table({"image": rows, "label": [1, 0, -1], "boxes": [[1, 2], [], [3]]})
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    parquet.write_table(table.replace_schema_metadata(metadata), tmp_path / "a.parquet")
    samples = source_of(tmp_path / "a.parquet")
    assert samples.frame.columns == ["path", "label"]
    assert samples.frame["label"].to_list() == ["dog", "cat", None]
    # Without paths, rows are named by their shard and number.
    assert samples.ids == ("a.parquet/0", "a.parquet/1", "a.parquet/2")
    parquet.write_table(
        table.replace_schema_metadata(metadata).set_column(1, "label", [[1, 0, 2]]), tmp_path / "b.parquet"
    )
    with pytest.raises(
        DataError, match="column 'label' holds the class number 2, but the file names 2 classes"
    ):
        source_of(tmp_path / "b.parquet")


class Elsewhere:
    """A shard as one behind an address is read: by its bytes alone."""

    has_version = True

    def __init__(self, path: Path) -> None:
        self.file = LocalFile(path)
        self.name, self.size, self.stamp = str(path), self.file.size, self.file.stamp

    def read(self, at: int, size: int) -> bytes:
        return self.file.read(at, size)


@pytest.mark.parametrize("compression", ["uncompressed", "snappy"])
def test_columns_of_any_type_are_read_from_an_address(tmp_path, compression):
    """Numbers, truth values and dates as of the same file here: a label is seldom text."""
    rows = range(300)
    columns = {
        "image": [{"bytes": png(row % 3), "path": f"{row}.png"} for row in rows],
        "label": [row % 3 for row in rows],
        "share": [row / 7 for row in rows],
        "sharp": [row % 2 == 0 for row in rows],
        "day": [datetime.date(2026, 1, 1 + row % 28) for row in rows],
    }
    path = tmp_path / "a.parquet"
    pl.DataFrame(columns).write_parquet(path, compression=compression, row_group_size=100)
    here = parquet_rows(LocalFile(path))
    assert parquet_rows(Elsewhere(path)).equals(here)
    assert here["label"].to_list() == [str(row % 3) for row in rows]


def test_few_decompressed_pages_are_kept(monkeypatch):
    """The last ones, as far as their bytes allow, of all shards together; a page that is too large is kept alone."""
    monkeypatch.setattr(shards_module, "PAGE_BYTES", 100)
    pages = shards_module.Pages()
    for number in range(4):
        pages.keep((number, 0), bytes(40))
    pages.keep((3, 0), bytes(40))
    assert [pages.get((number, 0)) is not None for number in range(4)] == [False, False, True, True]
    pages.get((2, 0))
    pages.keep((4, 0), bytes(40))
    assert pages.get((3, 0)) is None
    assert pages.get((2, 0)) is not None
    pages.keep((5, 0), bytes(1000))
    assert [pages.get((number, 0)) is not None for number in range(6)] == [False] * 5 + [True]


def test_paths_that_repeat_are_no_ids(tmp_path):
    """Other shards may have a `0.png` too."""
    write_parquet(tmp_path / "a.parquet", [png(0), png(1)], ["0.png", "0.png"], label=["x", "y"])
    samples = source_of(tmp_path / "a.parquet")
    assert samples.ids == ("a.parquet/0.png", "a.parquet/1.png")
    assert "is empty or repeats itself" in samples.notes[0]


def test_a_table_without_images_stays_a_table(tmp_path):
    """Parquet is also what tables are written in."""
    pl.DataFrame({"path": ["a.png"], "label": ["x"]}).write_parquet(tmp_path / "samples.parquet")
    (tmp_path / "a.png").write_bytes(png(0))
    assert not is_sharded(tmp_path / "samples.parquet")
    assert read_source(tmp_path / "samples.parquet", tmp_path, "path", None, None).shards is None


@pytest.mark.parametrize("width", range(1, 8))
def test_packed_bits(width):
    """Runs and packed numbers in turn, as the format's specification has them."""
    packed_numbers = np.arange(16) % 2**width
    bits = (packed_numbers[:, None] >> np.arange(width)) & 1
    data = bytes([2 << 1 | 1]) + np.packbits(bits.reshape(-1), bitorder="little").tobytes()
    data += bytes([5 << 1, 1])
    assert runs(data, width, 21).tolist() == [*packed_numbers.tolist(), 1, 1, 1, 1, 1]
    assert runs(data, width, 13).tolist() == packed_numbers[:13].tolist()


# --- tar and zip ---------------------------------------------------------------------------------------------


def test_tar_by_webdataset_naming(tmp_path):
    """Labels and columns lie beside the images; what belongs to no image is no row."""
    files = {
        "a/0001.jpg.png": png(0),  # the key ends at the first dot
        "a/0001.cls": b"3\n",
        "a/0001.json": b'{"size": 1.5, "tags": ["x"], "path": "first", "none": null}',
        "a/0002.png": png(1),
        "a/0002.txt": "글".encode(),
        "a/0003.cls": b"4",
        "a/._0004.png": b"junk",
    }
    samples = source_of(write_tar(tmp_path / "a.tar", files))
    # One of them says no path, so that paths are those in the archive.
    ids = ("a.tar/a/0001.jpg.png", "a.tar/a/0002.png")
    assert samples.ids == ids
    assert samples.frame.rows(named=True) == [
        {"label": "3", "size": "1.5", "tags": '["x"]', "path": ids[0], "none": None, "text": None},
        {"label": None, "size": None, "tags": None, "path": ids[1], "none": None, "text": "글"},
    ]
    assert all_bytes(samples) == [png(0), png(1)]


@pytest.mark.parametrize("write", [write_tar, write_zip])
def test_archives_of_class_folders(tmp_path, write):
    """As a folder: sorted, `./` and a folder around everything do not matter, junk is left out."""
    files = {
        "./b/2.png": png(2),
        "b/1.png": png(1),
        "a/3.png": png(3),
        "a/notes.txt": b"x",
        "__MACOSX/a/3.png": b"j",
    }
    samples = source_of(write(tmp_path / f"x.{write.__name__[6:]}", files))
    assert samples.ids == ("a/3.png", "b/1.png", "b/2.png")
    assert samples.frame["label"].to_list() == ["a", "b", "b"]
    assert all_bytes(samples) == [png(3), png(1), png(2)]
    around = {f"data/{name.removeprefix('./')}": data for name, data in files.items()} | {"0.png": png(9)}
    del around["0.png"]
    samples = source_of(write(tmp_path / f"y.{write.__name__[6:]}", around))
    assert samples.frame["label"].to_list() == ["a", "b", "b"]
    loose = source_of(write(tmp_path / f"z.{write.__name__[6:]}", {**files, "loose.png": png(4)}))
    assert len(loose) == 3
    assert "left out 1 images that are in no class folder" in loose.notes[0]


def test_a_zip_with_a_table(tmp_path):
    """The table at its top names the images; one that is missing is an image that cannot be used."""
    files = {"t.csv": b"path,kind\nx/1.png,u\nx/2.png,\nx/3.png,v\n", "x/1.png": png(1), "x/2.png": png(2)}
    samples = source_of(write_zip(tmp_path / "a.zip", files))
    assert samples.frame.rows() == [("x/1.png", "u"), ("x/2.png", None), ("x/3.png", "v")]
    with pytest.raises(ImageError, match=r"a\.zip/x/3\.png: there is no such image in a\.zip"):
        read_image(samples.paths[2], root=samples.allowed_folders)
    write_zip(tmp_path / "b.zip", {**files, "u.csv": b"path\n"})
    with pytest.raises(DataError, match=r"found the tables t\.csv, u\.csv in it; allowed: one"):
        source_of(tmp_path / "b.zip")


def test_a_name_in_a_shard_is_no_path(tmp_path):
    """Names that lead out of an archive, and links in it, read nothing of this machine."""
    (tmp_path / "secret.png").write_bytes(png(5))
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        link = tarfile.TarInfo("cat/link.png")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path / "secret.png")
        archive.addfile(link)
        for name in ("../secret.png", "cat/0.png", "/dog/0.png"):
            entry = tarfile.TarInfo(name)
            entry.size = len(png(1))
            archive.addfile(entry, io.BytesIO(png(1)))
    samples = source_of(tmp_path / "a.tar")
    assert "cat/link.png" not in samples.ids
    assert all_bytes(samples) == [png(1)] * len(samples)
    for name in ("../secret.png", "../../secret.png", "cat/link.png"):
        assert _read_or_none(f"{tmp_path}/a.tar/{name}", samples) != png(5)


def _read_or_none(path, samples) -> bytes | None:
    try:
        return read_file(path, MANY_PIXELS, samples.allowed_folders)[1]
    except (Unreadable, DataError):
        return None


def test_only_the_shards_of_the_source_are_read(photos, tmp_path):
    """Neither another shard nor a file, where shards are the source; no shard outside of a folder, where that is."""
    samples = source_of(packed(photos, tmp_path / "one", "tar"))
    other = source_of(packed(photos, tmp_path / "two", "tar"))
    for path in (other.paths[0], photos / "cat/000.png"):
        with pytest.raises(Unreadable, match="is outside of the shards of this source"):
            read_file(path, MANY_PIXELS, samples.allowed_folders)
    with pytest.raises(Unreadable, match="is outside of"):
        read_file(other.paths[0], MANY_PIXELS, tmp_path / "one")
    assert read_file(other.paths[0], MANY_PIXELS, tmp_path / "two")[0] == "PNG"
    assert member_of(photos / "cat/000.png") is None
    (tmp_path / "folder.tar").mkdir()
    (tmp_path / "folder.tar" / "a.png").write_bytes(png(3))
    assert read_file(tmp_path / "folder.tar/a.png", MANY_PIXELS, tmp_path)[1] == png(3)


def test_an_address_in_a_table_is_no_reason_to_ask_a_server(tmp_path, make_images, make_table, monkeypatch):
    """Not even where the folder of images is the current one, before which nothing stands."""
    cell = "https://example.org/a.tar/0.png"
    monkeypatch.setattr(
        "classwise.data.image_file.open_shard", lambda shard, stamp: pytest.fail(f"{shard} is asked for")
    )
    names = [*make_images(tmp_path / "photos", {"a": 6, "b": 6}), cell]
    rows = [{"path": name, "label": "b" if name[0] == "b" else "a"} for name in names]
    monkeypatch.chdir(tmp_path / "photos")
    table = make_table(Path("samples.csv"), rows)
    samples = read_source(table, Path(), "path", None, None)
    assert str(samples.paths[-1]) == "https:/example.org/a.tar/0.png"
    with pytest.raises(Unreadable, match="is behind an address, and so outside of the folder"):
        read_file(samples.paths[-1], MANY_PIXELS, samples.allowed_folders)
    assert look_at(table, hub=False, scratch=True).config.data.path == "path"


def test_bombs_are_refused_before_they_are_unpacked(tmp_path, monkeypatch):
    """An entry that says it is huge, and one that is larger than it says."""
    huge = b"\x89PNG\r\n\x1a\n" + bytes(3 * 10**7)
    samples = source_of(write_zip(tmp_path / "a.zip", {"a/1.png": huge, "b/2.png": png(0)}))
    monkeypatch.setattr("classwise.data.image_file.METADATA_BYTES", 10**6)
    with pytest.raises(Unreadable, match=r"30,000,008 bytes, too many for an image of 1,000 pixels"):
        read_file(samples.paths[0], 1000, samples.allowed_folders)

    # The directory says 100 bytes: no more are unpacked, and the checksum is not theirs.
    data = (tmp_path / "a.zip").read_bytes()
    size = len(huge).to_bytes(4, "little")
    (tmp_path / "b.zip").write_bytes(data.replace(size, (100).to_bytes(4, "little")))
    samples = source_of(tmp_path / "b.zip")
    with pytest.raises(Unreadable, match="do not have the checksum"):
        read_file(samples.paths[0], MANY_PIXELS, samples.allowed_folders)


# --- damaged, missing and changed -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("share", [0.3, 0.8])
def test_a_shard_that_is_cut_short_is_refused(photos, tmp_path, kind, share):
    """As a whole, by its name: an image fewer would go unseen."""
    (shard,) = packed(photos, tmp_path / "out", kind).iterdir()
    data = shard.read_bytes()
    shard.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(DataError, match=rf"{shard.name}.*cut short"):
        source_of(shard if kind == "parquet" else tmp_path / "out")


def test_a_missing_shard_is_named(photos, tmp_path):
    """By the numbers in the names, and where a pattern counts them."""
    out = packed(photos, tmp_path / "out", "tar", 3000)
    shards = sorted(out.iterdir())
    shards[1].unlink()
    with pytest.raises(
        DataError, match=rf"found {len(shards) - 1} of {len(shards)} shards; missing: number 1"
    ):
        source_of(out)
    for shard in shards[2:]:
        shard.rename(tmp_path / shard.name)
    for source in (out, out / "images-*.tar"):
        with pytest.raises(DataError, match=rf"found 1 of {len(shards)} shards; missing: number 1"):
            source_of(source)
    assert len(source_of(shards[0])) > 0  # whoever names it means it
    with pytest.raises(DataError, match="this shard cannot be opened: No such file"):
        read_shards(f"{out}/images-{{00000..{len(shards) - 1:05d}}}-of-{len(shards):05d}.tar")
    with pytest.raises(DataError, match="no shard is named like this"):
        read_shards(f"{out}/other-*.tar")


@pytest.mark.parametrize("kind", FORMATS)
def test_a_shard_that_changes_is_an_error_at_the_next_image(photos, tmp_path, kind):
    """Written over, cut short, or removed before a worker opens it: never another image without a word."""
    out = packed(photos, tmp_path / "out", kind)
    (shard,) = out.iterdir()
    samples = source_of(out)
    dataset = ImageDataset(samples.paths, (8, 8), "squash", MANY_PIXELS, root=samples.allowed_folders)
    assert not isinstance(dataset[0, 0], ImageError)
    data = shard.read_bytes()
    os.truncate(shard, len(data) // 2)
    error = dataset[0, 0]
    assert isinstance(error, ImageError)
    assert "this shard has changed since its rows were read" in str(error)

    # Another process, which opens it now.
    for change in (lambda: shard.write_bytes(data + b"x"), shard.unlink):
        forget_opened()
        change()
        error = dataset[0, 0]
        assert isinstance(error, ImageError)
        assert shard.name in str(error)
        assert "changed since" in str(error) or "No such file" in str(error)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_flipped_byte_is_one_bad_image_or_a_bad_shard(photos, tmp_path, kind):
    """Never an exception of another kind, wherever the byte is."""
    out = packed(photos, tmp_path / "out", kind)
    (shard,) = out.iterdir()
    data = shard.read_bytes()
    rng = np.random.default_rng(0)
    for place in [
        *range(0, 60, 3),
        *rng.integers(0, len(data), 60).tolist(),
        *range(len(data) - 200, len(data), 3),
    ]:
        shard.write_bytes(data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :])
        os.utime(shard, ns=(place, place))
        forget_opened()
        try:
            samples = source_of(out)
        except DataError:
            continue
        for path in samples.paths:
            with contextlib.suppress(DataError):
                read_image(path, root=samples.allowed_folders)


# --- the index ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FORMATS)
def test_the_index_is_made_once(photos, tmp_path, kind, monkeypatch):
    """A second process finds it in the user's cache; a shard that changed is looked at anew, and the old index goes."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    out = packed(photos, tmp_path / "out", kind)
    (shard,) = out.iterdir()
    before = all_bytes(source_of(out))
    files = sorted((tmp_path / "cache/classwise/shards").iterdir())
    assert sorted(path.suffix for path in files) == [".npy", ".parquet"]

    calls = []
    for name in ("parquet_rows", "parquet_locations", "scan_tar", "scan_zip"):
        made = getattr(shards_module, name)
        monkeypatch.setattr(
            shards_module, name, lambda file, made=made: calls.append(file.name) or made(file)
        )
    forget_opened()
    assert all_bytes(source_of(out)) == before
    assert calls == []
    os.utime(shard, (1, 1))
    forget_opened()
    assert all_bytes(source_of(out)) == before
    assert calls
    assert len(list((tmp_path / "cache/classwise/shards").iterdir())) == 2


def test_without_a_version_nothing_is_remembered(photos, tmp_path, monkeypatch):
    """Another shard of the same size behind an address would be read by the index of this one."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (shard,) = packed(photos, tmp_path / "out", "tar").iterdir()
    file = Elsewhere(shard)
    for has_version in (True, False):
        file.has_version = has_version
        remember(file, np.zeros((7, 1), np.uint64), pl.DataFrame({"a": ["x"]}))
        assert (remembered_locations(file) is not None) == has_version
        assert (remembered_rows(file) is not None) == has_version
    shutil.rmtree(tmp_path / "cache")
    remember(file, np.zeros((7, 1), np.uint64), pl.DataFrame({"a": ["x"]}))
    assert not (tmp_path / "cache").exists()


def test_a_damaged_index_is_made_anew(photos, tmp_path, monkeypatch):
    """And so is one in a cache that cannot be written to, in memory."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    out = packed(photos, tmp_path / "out", "tar")
    before = all_bytes(source_of(out))
    for path in (tmp_path / "cache/classwise/shards").iterdir():
        path.write_bytes(b"damaged")
    forget_opened()
    assert all_bytes(source_of(out)) == before
    shutil.rmtree(tmp_path / "cache")
    (tmp_path / "cache").write_text("a file")
    forget_opened()
    assert all_bytes(source_of(out)) == before


def test_a_process_keeps_few_shards_open(photos, tmp_path, monkeypatch):
    """The least recently used are closed, and opened again when they are needed."""
    monkeypatch.setattr(shards_module, "OPEN_SHARDS", 2)
    samples = source_of(packed(photos, tmp_path / "out", "tar", 1))
    forget_opened()
    assert all_bytes(samples) == all_bytes(samples)
    opened = [os.path.realpath(entry) for entry in Path("/proc/self/fd").iterdir()]
    assert sum(Path(name).parent == tmp_path / "out" for name in opened) <= 2


# --- which shards --------------------------------------------------------------------------------------------


def test_patterns_name_shards(tmp_path):
    """Braces count and choose; stars match; a folder's shards are its source if there is nothing else in it."""
    for name in ("train-000.tar", "train-001.tar", "extra.tar"):
        write_tar(tmp_path / name, {"a/0.png": png(0), "b/1.png": png(1)})
    assert [path.name for path in shard_paths(tmp_path / "train-*.tar")] == ["train-000.tar", "train-001.tar"]
    braces = shard_paths(tmp_path / "{train-{000..001},extra}.tar")
    assert [path.name for path in braces] == ["extra.tar", "train-000.tar", "train-001.tar"]
    assert is_sharded(tmp_path)
    for name in ("cat", "loose.png", "table.csv"):
        (tmp_path / name).mkdir()
        assert not is_sharded(tmp_path)
        (tmp_path / name).rmdir()
    (tmp_path / "loose.png").write_bytes(png(0))
    assert not is_sharded(tmp_path)


def test_parts_of_a_split_are_not_one_source(tmp_path):
    """A test set among the training rows would be trained on."""
    for name in ("train-0.tar", "train-1.tar", "test-0.tar"):
        write_tar(tmp_path / name, {"a/0.png": png(0), "b/1.png": png(1)})
    assert parts_of(tmp_path) == {"train": tmp_path / "train-*.tar", "test": tmp_path / "test-*.tar"}
    with pytest.raises(DataError, match="found shards of test, train, which are parts of a split"):
        source_of(tmp_path)
    write_zip(tmp_path / "train-2.zip", {})
    with pytest.raises(DataError, match=r"found shards with \.tar, \.zip; allowed: one of"):
        shard_paths(tmp_path / "train-*")


def test_a_compressed_archive_is_refused(tmp_path):
    """No image in it can be found without unpacking those before it."""
    write_tar(tmp_path / "a.tar", {"a/0.png": png(0)})
    with tarfile.open(tmp_path / "b.tar", "w:gz") as archive:
        archive.add(tmp_path / "a.tar")
    with pytest.raises(DataError, match=r"b\.tar: a compressed archive"):
        source_of(tmp_path / "b.tar")


def test_paths_of_rows_are_a_sequence_in_two_arrays(tmp_path):
    """The same paths, also of names that are no UTF-8, for a hundredth of the objects."""
    names = ["a/1.png", "글/ü.png", "b/\udcff.png", ""]
    paths = RowPaths(tmp_path, names)
    assert list(paths) == [tmp_path / name for name in names]
    assert paths[-1] == tmp_path
    assert paths[1:3] == [tmp_path / name for name in names[1:3]]
    assert list(paths.take(np.array([2, 0]))) == [tmp_path / names[2], tmp_path / names[0]]
    assert list(pickle.loads(pickle.dumps(paths))) == list(paths)
    with pytest.raises(IndexError):
        paths[4]


def test_an_open_shard_is_read_by_many_threads(photos, tmp_path):
    """Nothing depends on where a file stands."""
    from concurrent.futures import ThreadPoolExecutor

    samples = source_of(packed(photos, tmp_path / "out", "zip"))
    expected = all_bytes(source_of(photos))
    forget_opened()
    paths = list(samples.paths) * 20
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda path: read_file(path, MANY_PIXELS, samples.allowed_folders)[1], paths))
    assert found == expected * 20
    assert open_shard(next((tmp_path / "out").iterdir())).kind == ".zip"
