"""The reader of DICOM images: one file, or a folder with the slices of one series.

Values are what the modality means: stored values times slope plus intercept (DICOM PS3.3, C.11.1.1.2). MONOCHROME1,
where low is white, is turned about. A series is sorted along the normal of its slices (C.7.6.2.1.1) and must be whole:
slices of one series and one size, evenly spaced, each place once. Colours are red, green and blue.

pydicom decodes what is not compressed, and RLE; JPEG 2000 needs pylibjpeg-openjpeg, other JPEG what a hospital adds.
"""

import logging
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from configs.schema import Record
from strategies.data.readers.base import Reader, require_readable
from strategies.data.source import Located, UnreadError, Why

if TYPE_CHECKING:
    from pydicom import FileDataset

UNEVEN = 0.1  # of the usual gap between slices: more is a slice that is missing, or there twice


class DicomReader(Reader):
    """Reads DICOM files with pydicom."""

    name = "dicom"
    needs = ("pydicom",)

    def read(self, record: Located, column: Record) -> NDArray[Any]:
        """Return (channels, height, width), or (1, slices, height, width) of a series or a file of several frames."""
        del column
        slices = [opened for path in record.files if (opened := _open(path, record)) is not None]
        if not slices:
            raise UnreadError(Why.UNREADABLE)
        if len(slices) == 1:
            return _image(slices[0])
        require_readable(len(slices), *_sides(slices[0]))
        return np.concatenate([_plane(each) for each in _in_order(slices)])[None]


def _open(path: str, record: Located) -> "FileDataset | None":
    """Return a file's data set, its pixels not yet decoded; None of a file without pixels beside a series' slices."""
    import pydicom
    from pydicom.errors import InvalidDicomError

    logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)  # it writes what it finds, which is a patient's
    try:
        # what is large stays in the file until a slice is decoded
        opened = pydicom.dcmread(path, defer_size=1 << 16)
    except InvalidDicomError:
        opened = None
    if opened is not None and "PixelData" in opened:
        return opened
    if len(record.files) == 1:
        raise UnreadError(Why.UNREADABLE)
    return None


def _sides(image: "FileDataset") -> tuple[int, ...]:
    frames = int(image.get("NumberOfFrames") or 1)
    return frames, int(image.Rows), int(image.Columns), int(image.SamplesPerPixel)


def _image(image: "FileDataset") -> NDArray[Any]:
    """Return (channels, height, width) of one frame, (1, frames, height, width) of several."""
    require_readable(*_sides(image))
    if int(image.SamplesPerPixel) > 1 or image.PhotometricInterpretation == "PALETTE COLOR":
        return np.moveaxis(_colours(image), -1, 0)
    values = _values(image)
    return values[None] if values.ndim == 2 else _frames_in_order(image, values)[None]


def _plane(image: "FileDataset") -> NDArray[np.float32]:
    """Return (1, height, width) of one slice of a series."""
    values = _values(image)
    if values.ndim != 2 or int(image.SamplesPerPixel) > 1:
        raise UnreadError(Why.SHAPE)
    return values[None]


def _values(image: "FileDataset") -> NDArray[np.float32]:
    """Return the values of grey pixels in the modality's unit."""
    from pydicom.pixels.processing import apply_modality_lut

    stored = image.pixel_array
    if image.PhotometricInterpretation == "MONOCHROME1":
        highest = -1 if image.PixelRepresentation else (1 << int(image.BitsStored)) - 1
        stored = highest - stored.astype(np.int64)
    values: NDArray[np.float32] = np.asarray(apply_modality_lut(stored, image), np.float32)
    return values


def _colours(image: "FileDataset") -> NDArray[Any]:
    """Return (height, width, 3) of one frame; of several (frames, height, width, 3), which no study reads."""
    from pydicom.pixels.processing import apply_color_lut

    pixels = image.pixel_array
    if image.PhotometricInterpretation == "PALETTE COLOR":
        pixels = apply_color_lut(pixels, image)
    if pixels.ndim != 3:
        raise UnreadError(Why.SHAPE)
    return np.asarray(pixels)


def _in_order(slices: "list[FileDataset]") -> "list[FileDataset]":
    """Return the slices of one whole series along their normal.

    Raises:
        UnreadError: they are of several series or sizes, or one is missing or there twice.
    """
    first = slices[0]
    same = {(str(each.SeriesInstanceUID), _sides(each)) for each in slices}
    normal = _normal(first.ImageOrientationPatient)
    if len(same) > 1 or any(not np.allclose(_normal(s.ImageOrientationPatient), normal, atol=1e-3) for s in slices):
        raise UnreadError(Why.UNREADABLE)
    places = [_along(each.ImagePositionPatient, normal) for each in slices]
    return [slices[i] for i in _evenly(places)]


def _frames_in_order(image: "FileDataset", values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return frames along their normal where each says where it lies, else as they stand there."""
    frames = image.get("PerFrameFunctionalGroupsSequence") or []
    try:
        positions = [frame.PlanePositionSequence[0].ImagePositionPatient for frame in frames]
        orientation = image.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0].ImageOrientationPatient
    except (AttributeError, IndexError):
        return values
    if len(positions) != len(values):
        return values
    normal = _normal(orientation)
    return values[_evenly([_along(position, normal) for position in positions])]


def _normal(orientation: Any) -> NDArray[np.float64]:
    row, column = np.asarray(orientation, np.float64).reshape(2, 3)
    return np.cross(row, column)


def _along(position: Any, normal: NDArray[np.float64]) -> float:
    return float(np.asarray(position, np.float64) @ normal)


def _evenly(places: list[float]) -> list[int]:
    """Return the order of places along a line.

    Raises:
        UnreadError: their gaps differ, or two are one.
    """
    order = np.argsort(places, kind="stable")
    gaps = np.diff(np.asarray(places)[order])
    usual = float(np.median(gaps))
    if usual <= 0 or (np.abs(gaps - usual) > UNEVEN * usual).any():
        raise UnreadError(Why.UNREADABLE)
    return [int(i) for i in order]


DICOM = DicomReader()
