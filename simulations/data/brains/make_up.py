"""The command that makes up brains of four hospitals: images whose true white matter is known.

Nobody's brain is in them. Each is the ICBM 152 template, which is an average of 152 people (Fonov et al. 2011,
10.1016/j.neuroimage.2010.07.033; it comes with the Python package nilearn 0.13.1, `pip install 'archipel[brains]'`),
bent by a smooth field of its own, turned and shifted a little. Its mask is the template's white matter, bent the same
way. Hospitals differ as their scanners would: contrast, the field's unevenness, and noise (HOSPITALS).

    python -m simulations.data.brains.make_up [--folder FOLDER] [--patients 24] [--side 24]

FOLDER (unless it is given, `made_up` here, where configs/presets/brain_seg.yaml looks) gets one CSV file a hospital,
with the columns patient, scan and mask, and a folder of NIfTI files for each. The same numbers give the same files.

>>> sorted(HOSPITALS)
['est', 'nord', 'ouest', 'sud']
"""

import argparse
import csv
import importlib.util
import io
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from configs.errors import ArchipelError, DataError
from configs.files import write_atomically

Volume = NDArray[np.float32]
FOLDER = Path(__file__).parent / "made_up"
PATIENTS, SIDE = 24, 24
_TEMPLATE = "mni_icbm152_{}_tal_nlin_sym_09a_converted.nii.gz"
_HEAD = 168.0  # millimetres, places of the template, along each side of the cube
_BEND, _TURN, _SHIFT = 0.9, 0.12, 0.6  # places; radians; places: standard deviations


@dataclass(frozen=True)
class Scanner:
    """A hospital's scanner. contrast: the power of intensities; gain: of all; uneven: of the field; noise: of each."""

    contrast: float
    gain: float
    uneven: float
    noise: float


HOSPITALS = {
    "nord": Scanner(1.0, 1.0, 0.10, 0.03),
    "est": Scanner(0.8, 1.6, 0.15, 0.05),
    "sud": Scanner(1.25, 0.7, 0.20, 0.04),
    "ouest": Scanner(1.0, 2.5, 0.25, 0.06),
}


def main(arguments: list[str] | None = None) -> int:
    """Write the brains of all hospitals; return 0, or 2 where the template is not installed."""
    parser = argparse.ArgumentParser(prog="python -m simulations.data.brains.make_up")
    parser.add_argument(
        "--folder", type=Path, default=FOLDER, help="where they go (default: made_up, beside this file)"
    )
    parser.add_argument("--patients", type=int, default=PATIENTS, help="of each hospital (default: %(default)s)")
    parser.add_argument("--side", type=int, default=SIDE, help="places along each axis (default: %(default)s)")
    options = parser.parse_args(arguments)
    try:
        make_up(options.folder, options.patients, options.side)
    except ArchipelError as error:
        print(f"make_up: {error}", file=sys.stderr)
        return 2
    print(f"{len(HOSPITALS)} hospitals, {options.patients} patients each: {options.folder}")
    return 0


def make_up(folder: Path, patients: int, side: int) -> None:
    """Write the brains of all hospitals into a folder.

    Raises:
        DataError: the template is not installed.
    """
    image, mask = templates(side)
    for number, (hospital, scanner) in enumerate(HOSPITALS.items()):
        (folder / hospital).mkdir(parents=True, exist_ok=True)
        table = io.StringIO(newline="")
        rows = csv.writer(table, lineterminator="\n")
        rows.writerow(["patient", "scan", "mask"])
        for patient in range(patients):
            brain = made_up(image, mask, scanner, np.random.default_rng([number, patient, side]))
            names = [f"{hospital}/{patient:03}-{what}.nii" for what in ("t1", "white")]
            for name, volume in zip(names, brain, strict=True):
                write_atomically(folder / name, _nifti(volume))
            rows.writerow([f"{hospital}-{patient:03}", *names])
        write_atomically(folder / f"{hospital}.csv", table.getvalue().encode())


def templates(side: int) -> tuple[Volume, Volume]:
    """Return the template's image and its share of white matter, from 0 to 1: (side, side, side) each.

    Raises:
        DataError: nilearn or nibabel is not installed.
    """
    package = importlib.util.find_spec("nilearn")
    if package is None or not package.submodule_search_locations or importlib.util.find_spec("nibabel") is None:
        raise DataError("expected the template that nilearn 0.13.1 holds, found none; pip install 'archipel[brains]'")
    import nibabel

    folder = Path(package.submodule_search_locations[0]) / "datasets" / "data"
    files: list[Any] = [nibabel.load(folder / _TEMPLATE.format(name)) for name in ("t1", "wm")]
    image, mask = (_shrunk(np.asarray(file.dataobj, np.float32) / 255.0, side) for file in files)
    return image, mask


def volume_of(path: Path) -> Volume:
    """Return the numbers of a NIfTI file."""
    import nibabel

    file: Any = nibabel.load(path)
    return np.asarray(file.dataobj, np.float32)


def _shrunk(volume: Volume, side: int) -> Volume:
    """Return a volume of so many places along each axis: the cube in its middle that the head fills."""
    from scipy import ndimage

    smooth = ndimage.gaussian_filter(volume, 0.35 * _HEAD / side)
    along = ((np.arange(side) + 0.5) / side - 0.5) * _HEAD
    grid = np.meshgrid(*[along + (length - 1) / 2 for length in volume.shape], indexing="ij")
    return np.asarray(ndimage.map_coordinates(smooth, grid, order=1), np.float32)


def made_up(image: Volume, mask: Volume, scanner: Scanner, chance: np.random.Generator) -> tuple[Volume, Volume]:
    """Return one patient's image, and a mask of 0 and 1: the template bent, and seen by a scanner."""
    from scipy import ndimage

    at = _bent_places(image.shape[0], chance)
    scan, white = (ndimage.map_coordinates(volume, at, order=1, mode="nearest") for volume in (image, mask))
    field = np.exp(scanner.uneven * _smooth(image.shape, chance))
    seen = scanner.gain * np.clip(scan, 0, None) ** scanner.contrast * field
    noisy = seen + scanner.gain * scanner.noise * chance.standard_normal(image.shape)
    return np.clip(100 * noisy, 0, 32_000).astype(np.float32), (white > 0.5).astype(np.float32)


def _bent_places(side: int, chance: np.random.Generator) -> NDArray[np.float64]:
    """Return where each place of a patient's brain is in the template: (3, side, side, side)."""
    middle = (side - 1) / 2
    places = np.stack(np.meshgrid(*[np.arange(side) - middle] * 3, indexing="ij"))
    turn = np.eye(3) + np.triu(chance.normal(0, _TURN, (3, 3)), 1)
    turn -= np.tril(turn.T, -1)
    bend = np.stack([_BEND * side / SIDE * _smooth((side,) * 3, chance) for _ in range(3)])
    shift = chance.normal(0, _SHIFT * side / SIDE, (3, 1, 1, 1))
    return np.asarray(np.einsum("ij,jxyz->ixyz", turn, places) + bend + shift + middle)


def _smooth(shape: tuple[int, ...], chance: np.random.Generator) -> NDArray[np.float64]:
    """Return a smooth field of mean square 1."""
    from scipy import ndimage

    field = ndimage.gaussian_filter(chance.standard_normal(shape), shape[0] / 6, mode="wrap")
    return np.asarray(field / np.sqrt(np.mean(field**2)))


def _nifti(volume: Volume) -> bytes:
    import nibabel

    image: Any = nibabel.Nifti1Image
    return bytes(image(volume.astype(np.int16), np.diag([*[_HEAD / len(volume)] * 3, 1.0])).to_bytes())


def sites(folder: Path = FOLDER) -> Iterator[tuple[str, Path]]:
    """Yield each hospital with its table."""
    for hospital in HOSPITALS:
        yield hospital, folder / f"{hospital}.csv"


if __name__ == "__main__":
    sys.exit(main())
