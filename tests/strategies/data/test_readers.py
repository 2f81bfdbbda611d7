"""Readers of images and series: what a good record becomes, and that a bad one is unknown, whatever it is."""

import shutil
import struct
import zlib
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from PIL import Image as Picture
from pydicom.data import get_testdata_file

from client.connectors.files import Below
from configs.schema import Image, Record, Series
from strategies.data.decode import Unread, decoded
from strategies.data.fit import fit
from strategies.data.readers.registry import READERS
from strategies.data.source import Why

NIFTI: Any = nibabel.Nifti1Image
DICOM = (
    "CT_small.dcm",
    "MR_small.dcm",
    "JPEG2000.dcm",
    "MR_small_RLE.dcm",
    "rtplan.dcm",
    "MR_truncated.dcm",
    "waveform_ecg.dcm",
    "JPEGLSNearLossless_16.dcm",
)
GREY = Image("scan", "image", reader="png", size=(4, 4), low=0.0, high=255.0)


def column(reader: str, size: tuple[int, ...], **keys: Any) -> Image:
    return Image("scan", "image", reader=reader, size=size, **keys)


def raw(path: Path, section: Record) -> NDArray[Any]:
    """What a reader says of one record, before size and scale."""
    return np.asarray(READERS[section.reader].read(Below(str(path.parent)).find(path.name), section))


def reason(path: Path, section: Record) -> Why | None:
    """Why a record is unknown; None where it is read."""
    unread = Unread()
    decoded(Below(str(path.parent)), path.name, section, unread)
    return next(iter(unread.why), None)


def written(path: Path, pixels: NDArray[Any], mode: str | None = None) -> Path:
    picture = Picture.fromarray(pixels)
    (picture.quantize(2) if mode == "P" else picture.convert(mode) if mode else picture).save(path)
    return path


# PNG


def test_grey_of_8_and_16_bits_keeps_its_values(tmp_path: Path) -> None:
    values = np.arange(16).reshape(4, 4) * 17
    assert raw(written(tmp_path / "a.png", values.astype(np.uint8)), GREY)[0].tolist() == values.tolist()
    deep = written(tmp_path / "b.png", (values * 257).astype(np.uint16))
    assert raw(deep, GREY)[0].tolist() == (values * 257).tolist()


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_colours_are_three_channels_and_transparency_is_left_out(tmp_path: Path, mode: str) -> None:
    colours = np.zeros((4, 4, 3), np.uint8)
    colours[..., 0], colours[0, 0] = 200, (10, 20, 30)
    path = written(tmp_path / "a.png", colours, mode)
    assert raw(path, GREY)[:, 0, 0].tolist() == [10, 20, 30]
    grey = decoded(Below(str(tmp_path)), "a.png", GREY)
    assert grey is not None
    assert grey[0, 0, 0] == pytest.approx((0.299 * 10 + 0.587 * 20 + 0.114 * 30) / 127.5 - 1, abs=1e-4)


def test_a_mask_with_a_palette_keeps_its_numbers(tmp_path: Path) -> None:
    picture = Picture.fromarray(np.array([[0, 1], [2, 1]], np.uint8), "P")
    picture.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    picture.save(tmp_path / "m.png")
    mask = decoded(Below(str(tmp_path)), "m.png", column("png", (4, 4), labels=True))
    assert mask is not None
    assert mask[0, :, 0].tolist() == [0, 0, 2, 2]


def test_a_picture_that_would_be_too_large_is_not_decoded(tmp_path: Path) -> None:
    """A file of 100 bytes says that it is 60,000 x 60,000."""
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    chunk = b"IHDR" + header
    data = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    (tmp_path / "bomb.png").write_bytes(data + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT")))
    assert reason(tmp_path / "bomb.png", GREY) in (Why.TOO_LARGE, Why.UNREADABLE)


def test_a_broken_picture_or_another_format_is_unknown(tmp_path: Path) -> None:
    whole = written(tmp_path / "a.png", np.full((64, 64), 9, np.uint8)).read_bytes()
    (tmp_path / "half.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.png").write_text("no picture")
    Picture.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "bmp.png", format="BMP")
    assert {reason(tmp_path / name, GREY) for name in ("half.png", "text.png", "bmp.png")} == {Why.UNREADABLE}
    assert reason(tmp_path / "a.png", column("png", (4, 4), channels=2)) is Why.SHAPE


# DICOM


def slices(folder: Path, places: list[float], **tags: Any) -> Path:
    """A made-up series of CT slices, each filled with its number, in files that are not in their order."""
    folder.mkdir()
    template = pydicom.dcmread(str(get_testdata_file("CT_small.dcm")))
    for number, place in enumerate(places):
        template.PixelData = np.full((template.Rows, template.Columns), number, np.int16).tobytes()
        template.ImagePositionPatient, template.InstanceNumber = [0.0, 0.0, place], number
        for name, value in tags.items():
            setattr(template, name, value[number])
        template.save_as(folder / f"{(number * 7) % len(places)}.dcm")
    (folder / "notes.txt").write_text("not a slice")
    return folder


@pytest.fixture
def dicom(tmp_path: Path) -> Path:
    for name in DICOM:
        shutil.copy(str(get_testdata_file(name, download=False)), tmp_path / name)
    return tmp_path


def test_values_are_in_the_modalitys_unit(dicom: Path) -> None:
    image = pydicom.dcmread(dicom / "CT_small.dcm")
    read = raw(dicom / "CT_small.dcm", column("dicom", (128, 128)))
    assert read.shape == (1, 128, 128)
    assert np.array_equal(read[0], image.pixel_array * float(image.RescaleSlope) + float(image.RescaleIntercept))


def test_where_low_is_white_the_values_are_turned_about(dicom: Path) -> None:
    image = pydicom.dcmread(dicom / "MR_small.dcm")
    before = raw(dicom / "MR_small.dcm", column("dicom", (64, 64)))
    image.PhotometricInterpretation = "MONOCHROME1"
    image.save_as(dicom / "white.dcm")
    assert np.array_equal(raw(dicom / "white.dcm", column("dicom", (64, 64))), -1 - before)


def test_a_series_is_sorted_along_its_normal(tmp_path: Path) -> None:
    folder = slices(tmp_path / "series", [30.0, 10.0, 20.0, 0.0])
    intercept = -1024
    assert (raw(folder, column("dicom", (4, 8, 8)))[0, :, 5, 5] - intercept).tolist() == [3, 1, 2, 0]


def test_a_series_that_is_not_whole_is_unknown(tmp_path: Path) -> None:
    wanted = column("dicom", (4, 8, 8))
    missing = slices(tmp_path / "missing", [0.0, 10.0, 20.0, 40.0, 50.0])
    twice = slices(tmp_path / "twice", [0.0, 10.0, 10.0, 20.0, 30.0])
    mixed = slices(tmp_path / "mixed", [0.0, 10.0, 20.0], SeriesInstanceUID=["1.2.3", "1.2.3", "1.2.4"])
    assert {reason(folder, wanted) for folder in (missing, twice, mixed)} == {Why.UNREADABLE}


def test_compressed_images_are_read_where_a_decoder_is_there_and_others_are_unknown(dicom: Path) -> None:
    assert np.array_equal(
        raw(dicom / "MR_small_RLE.dcm", column("dicom", (64, 64))),
        raw(dicom / "MR_small.dcm", column("dicom", (64, 64))),
    )
    assert raw(dicom / "JPEG2000.dcm", column("dicom", (64, 64))).shape == (1, 1024, 256)


@pytest.mark.parametrize("name", ["rtplan.dcm", "MR_truncated.dcm", "waveform_ecg.dcm", "JPEGLSNearLossless_16.dcm"])
def test_what_has_no_pixels_half_of_them_or_no_decoder_here_is_unknown(dicom: Path, name: str) -> None:
    assert reason(dicom / name, column("dicom", (8, 8))) is Why.UNREADABLE


# NIfTI


def test_a_volume_is_turned_to_the_axes_of_an_axial_series_and_scaled(tmp_path: Path) -> None:
    values = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    upright = NIFTI(values, np.diag([-1.0, -1.0, 1.0, 1.0]))  # x to the left, y to the back
    header: Any = upright.header
    header.set_slope_inter(2.0, 1.0)
    nibabel.save(upright, tmp_path / "a.nii.gz")
    turned = NIFTI(
        values[::-1].transpose(2, 0, 1), np.array([[0, 1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1.0]])
    )
    nibabel.save(turned, tmp_path / "b.nii")
    section = column("nifti", (4, 3, 2))
    loaded: Any = nibabel.load(tmp_path / "a.nii.gz")
    stored = np.asarray(loaded.dataobj)
    assert np.array_equal(raw(tmp_path / "a.nii.gz", section), stored.transpose(2, 1, 0))
    assert np.array_equal(raw(tmp_path / "b.nii", section), values.transpose(2, 1, 0))


def test_several_volumes_or_a_broken_header_are_unknown(tmp_path: Path) -> None:
    nibabel.save(NIFTI(np.zeros((2, 2, 2, 3), np.int16), np.eye(4)), tmp_path / "four.nii")
    (tmp_path / "broken.nii").write_bytes((tmp_path / "four.nii").read_bytes()[:200])
    section = column("nifti", (2, 2, 2))
    assert reason(tmp_path / "four.nii", section) is Why.SHAPE
    assert reason(tmp_path / "broken.nii", section) is Why.UNREADABLE


# Series


@pytest.mark.parametrize(
    "text",
    [
        "1,4\n2,5\n3,6\n",
        "heart,pressure\r\n1,4\r\n2,5\r\n3,6\r\n",
        "1,0;4,0\n2,0;5,0\n3,0;6,0\n",
        "1\t4\n2\t5\n3\t6",
        "1 4\n2 5\n3 6\n",
    ],
)
def test_a_line_is_a_point_in_time_and_a_column_a_channel(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.csv").write_text(text)
    section = Series("vitals", "series", reader="csv", channels=2, size=(5,), low=0.0, high=6.0)
    assert raw(tmp_path / "a.csv", section).tolist() == [[1, 2, 3], [4, 5, 6]]
    made = decoded(Below(str(tmp_path)), "a.csv", section)
    assert made is not None
    assert made == pytest.approx(np.array([[-2 / 3, -1 / 3, 0, 0, 0], [1 / 3, 2 / 3, 1, 0, 0]]), abs=1e-4)


def test_a_long_series_is_cut_and_a_gap_in_it_is_zero() -> None:
    section = Series("vitals", "series", reader="csv", size=(3,), low=-1.0, high=1.0)
    assert fit(np.array([1.0, np.nan, -1.0, 1.0]), section).tolist() == [[1, 0, -1]]


def test_lines_of_different_width_or_a_pickle_are_unknown(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("1,2\n3\n")
    np.save(tmp_path / "a.npy", np.array([{"a": 1}]), allow_pickle=True)
    series = Series("vitals", "series", reader="csv", size=(3,), channels=2)
    assert reason(tmp_path / "a.csv", series) is Why.UNREADABLE
    assert reason(tmp_path / "a.npy", Series("vitals", "series", reader="npy", size=(3,))) is Why.UNREADABLE


# Size and scale


def test_another_size_keeps_the_mean_of_an_image() -> None:
    rng = np.random.default_rng(0)
    image = rng.uniform(0, 1, (60, 90))
    small = fit(image, column("npy", (6, 9), low=0.0, high=1.0))
    assert small.shape == (1, 6, 9)
    assert abs(float(small.mean()) - (2 * image.mean() - 1)) < 0.02
    flat = fit(np.full((5, 7, 9), 3.0), column("npy", (3, 9, 4), low=0.0, high=6.0))
    assert np.array_equal(flat, np.zeros((1, 3, 9, 4), np.float32))


def test_without_a_window_a_records_own_values_scale_it() -> None:
    image = np.linspace(0, 1, 10_000).reshape(100, 100)
    section = column("npy", (100, 100))
    made = fit(image, section)
    assert np.array_equal(made, fit(image * 40 + 7, section))
    assert (made.min(), made.max()) == (-1.0, 1.0)
    assert np.array_equal(fit(np.full((100, 100), 5.0), section), np.zeros((1, 100, 100), np.float32))


# Whatever a file holds


@pytest.fixture
def records(dicom: Path) -> dict[str, Record]:
    """One good record of each format, with the name of a patient in its path."""
    rng = np.random.default_rng(0)
    written(dicom / "dupont.png", rng.integers(0, 255, (12, 12), dtype=np.uint8))
    nibabel.save(NIFTI(rng.normal(size=(6, 6, 6)), np.eye(4)), dicom / "dupont.nii")
    np.save(dicom / "dupont.npy", rng.normal(size=(6, 6)))
    (dicom / "MR_small.dcm").rename(dicom / "dupont.dcm")
    (dicom / "dupont.csv").write_text("1,2\n" * 9)
    return {
        "dupont.png": column("png", (6, 6)),
        "dupont.nii": column("nifti", (6, 6, 6)),
        "dupont.npy": column("npy", (6, 6)),
        "dupont.dcm": column("dicom", (6, 6)),
        "dupont.csv": Series("scan", "series", reader="csv", channels=2, size=(6,)),
    }


def damaged(whole: bytes, rng: np.random.Generator) -> bytes:
    """A file with some bytes changed, and now and then its end cut off."""
    content = np.frombuffer(whole, np.uint8).copy()
    places = rng.integers(0, min(len(content), 2000), rng.integers(1, 6))
    content[places] = rng.integers(0, 256, len(places))
    return content[: rng.integers(1, len(content)) if rng.random() < 0.3 else None].tobytes()


def test_damaged_files_are_records_of_the_studys_shape_or_unknown_and_nothing_is_said_of_them(
    dicom: Path, records: dict[str, Record], capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    rng, below = np.random.default_rng(1), Below(str(dicom))
    read = unknown = 0
    for name, section in records.items():
        whole = (dicom / name).read_bytes()
        assert decoded(below, name, section) is not None
        for _ in range(25):
            (dicom / name).write_bytes(damaged(whole, rng))
            record = decoded(below, name, section)
            unknown += record is None
            if record is not None:
                read += 1
                assert record.shape == section.full_shape
                assert np.abs(record).max() <= 1.0  # and finite
    assert min(read, unknown) > 10
    assert "".join(capfd.readouterr()) == ""
    assert "dupont" not in caplog.text


def test_of_a_series_in_text_no_more_is_worked_on_than_the_study_reads(tmp_path: Path) -> None:
    (tmp_path / "long.csv").write_text("t;v\n" + "1;2\n" * 5 + "3;4;5\n")  # what comes later may be anything
    series = Series("scan", "series", reader="csv", size=(5,), channels=2, low=0.0, high=4.0)
    record = decoded(Below(str(tmp_path)), "long.csv", series)
    assert record is not None
    assert record.tolist() == [[-0.5] * 5, [0.0] * 5]
