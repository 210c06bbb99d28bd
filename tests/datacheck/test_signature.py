"""One pass over the files: sizes, statistics, small views, and reasons."""

import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from classwise.data.pixel_format import PixelFormat
from classwise.datacheck.signature import (
    THUMBNAIL,
    Signature,
    UnreadableFile,
    read_signature,
    read_signatures,
    views,
)
from tests.helpers.drawings import bordered, drawing, write_drawing


def signature(path: Path) -> Signature:
    found = read_signature(path)
    assert isinstance(found, Signature), found
    return found


def test_a_file_is_known_by_the_hash_of_its_bytes(tmp_path: Path) -> None:
    path = write_drawing(tmp_path / "a.png", drawing(0))
    assert signature(path).content == hashlib.sha256(path.read_bytes()).digest()


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_sizes_are_those_of_the_whole_image(tmp_path: Path, suffix: str) -> None:
    path = write_drawing(tmp_path / f"a{suffix}", drawing(0, size=(700, 1100)))
    statistics = signature(path).statistics
    assert (statistics.height, statistics.width) == (700, 1100)


def test_a_turned_jpeg_has_its_upright_size(tmp_path: Path) -> None:
    image = Image.fromarray(drawing(0, size=(200, 300)))
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", exif=exif)
    path = tmp_path / "a.jpg"
    path.write_bytes(buffer.getvalue())
    statistics = signature(path).statistics
    assert (statistics.height, statistics.width) == (300, 200)


def test_levels_are_counted(tmp_path: Path) -> None:
    gray_HW = np.full((80, 100), 50, np.uint8)
    gray_HW[:, 50:] = 200
    found = signature(write_drawing(tmp_path / "a.png", gray_HW)).statistics
    assert (found.mean, found.std) == (125, 75)
    assert (found.p1, found.p99) == (50, 200)
    assert found.entropy == pytest.approx(1)


def test_one_level_alone_has_neither_entropy_nor_sharpness(tmp_path: Path) -> None:
    found = signature(write_drawing(tmp_path / "a.png", np.full((9, 9, 3), 77, np.uint8))).statistics
    assert (found.mean, found.std, found.entropy, found.sharpness) == (77, 0, 0, 0)


def test_percentiles_are_those_of_numpy(tmp_path: Path) -> None:
    gray_HW = drawing(3)[..., 0]
    found = signature(write_drawing(tmp_path / "a.png", gray_HW)).statistics
    expected = np.percentile(gray_HW, (1, 99), method="inverted_cdf")
    assert (found.p1, found.p99) == tuple(expected)


def test_blurring_takes_sharpness(tmp_path: Path) -> None:
    import cv2

    sharp_HWC = drawing(1)
    blurred_HWC = cv2.GaussianBlur(sharp_HWC, (0, 0), 2)
    sharp = signature(write_drawing(tmp_path / "a.png", sharp_HWC)).statistics.sharpness
    assert signature(write_drawing(tmp_path / "b.png", blurred_HWC)).statistics.sharpness < sharp / 4


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_color_is_told_from_gray(tmp_path: Path, suffix: str) -> None:
    color_HWC = drawing(2)
    gray_HWC = np.repeat(color_HWC[..., :1], 3, axis=2)
    assert not signature(write_drawing(tmp_path / f"color{suffix}", color_HWC)).statistics.gray
    assert signature(write_drawing(tmp_path / f"gray{suffix}", gray_HWC)).statistics.gray
    assert signature(write_drawing(tmp_path / f"one{suffix}", gray_HWC[..., 0])).statistics.gray


def test_a_border_is_left_out() -> None:
    gray_HW = drawing(4)[..., 0]
    framed_HW = bordered(gray_HW, 20, 25, level=255)
    assert np.array_equal(views(framed_HW), views(gray_HW))


def test_what_may_be_a_border_at_two_sides_gives_both_views() -> None:
    gray_HW = drawing(4)[..., 0]
    found_VSS = views(bordered(gray_HW, 30, 0, level=0))
    assert len(found_VSS) == 2
    assert np.array_equal(found_VSS[1:], views(gray_HW))


def test_the_ground_around_an_object_is_no_border() -> None:
    import cv2

    ground_HW = np.zeros((100, 100), np.uint8)
    cv2.ellipse(ground_HW, (50, 50), (30, 20), 0, 0, 360, 200, thickness=-1)
    found_VSS = views(ground_HW)
    assert len(found_VSS) == 1
    assert found_VSS[0, 0].max() == 0


@pytest.mark.parametrize("size", [(1, 1), (1, 90), (8, 8), (2000, 3)])
def test_images_of_any_size_have_a_view(tmp_path: Path, size: tuple[int, int]) -> None:
    gray_HW = np.arange(size[0] * size[1], dtype=np.uint32).reshape(size).astype(np.uint8)
    found = signature(write_drawing(tmp_path / "a.png", gray_HW))
    assert found.views_VSS.shape[1:] == (THUMBNAIL, THUMBNAIL)
    assert found.views_VSS.dtype == np.uint8


def test_a_damaged_file_gives_its_reason(tmp_path: Path) -> None:
    whole = write_drawing(tmp_path / "a.jpg", drawing(0)).read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.png").write_text("no image at all")
    paths = [tmp_path / name for name in ("cut.jpg", "text.png", "absent.png", "a.jpg")]
    cut_short, text, absent, good = read_signatures(paths)
    assert isinstance(cut_short, UnreadableFile)
    assert cut_short.reason.startswith("JPEG: cut short or damaged")
    assert isinstance(text, UnreadableFile)
    assert "not an image of a known kind" in text.reason
    assert isinstance(absent, UnreadableFile)
    assert "No such file" in absent.reason
    assert isinstance(good, Signature)


def test_what_lies_outside_of_the_folder_is_not_read(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "link.png").symlink_to(write_drawing(tmp_path / "a.png", drawing(0)))
    found = read_signature(folder / "link.png", root=folder)
    assert isinstance(found, UnreadableFile)
    assert "outside of" in found.reason


def test_other_channels_are_taken_as_they_are(tmp_path: Path) -> None:
    import tifffile

    path = tmp_path / "a.tif"
    tifffile.imwrite(
        path, np.full((20, 30, 5), 40, np.uint8), photometric="minisblack", planarconfig="contig"
    )
    refused = read_signature(path)
    assert isinstance(refused, UnreadableFile)
    assert "5 channels" in refused.reason
    found = read_signature(path, pixels=PixelFormat(channels=5))
    assert isinstance(found, Signature)
    assert found.statistics.mean == 40


def test_threads_make_no_difference_and_progress_sees_each_path(tmp_path: Path) -> None:
    paths = [write_drawing(tmp_path / f"{seed}.png", drawing(seed)) for seed in range(8)]
    shown: list[Path] = []

    def progress(sequence: object) -> list[Path]:
        shown.extend(sequence)  # type: ignore[arg-type]
        return list(shown)

    one, three = read_signatures(paths, threads=1), read_signatures(paths, threads=3, progress=progress)
    assert shown == paths
    for first, second in zip(one, three, strict=True):
        assert isinstance(first, Signature)
        assert isinstance(second, Signature)
        assert first.content == second.content
        assert np.array_equal(first.views_VSS, second.views_VSS)
        assert first.statistics == second.statistics


def test_no_files_have_no_signatures() -> None:
    assert read_signatures([]) == []
