"""The bundle (FAB) of a run: one study and no code.

Flower sends a bundle (FAB) to every node. Ours names the apps that are installed with Archipel, and carries one study
in its canonical form; a node that finds anything else in a bundle refuses it (configs/bundle.py).
"""

import hashlib
import sys
from pathlib import Path

from configs.bundle import LICENSE, STUDY_FILE, project_file
from configs.errors import ArchipelError
from configs.load import load_study
from configs.schema import Study
from server.superlink.flower_inside import build_fab_from_files


def build_bundle(study: Study) -> tuple[bytes, str]:
    """Return the bundle and its SHA-256, the same for the same study."""
    content, _ = build_fab_from_files(bundle_files(study))
    return content, hashlib.sha256(content).hexdigest()


def bundle_files(study: Study) -> dict[str, bytes]:
    """Return what is in the bundle, by name."""
    return {
        "pyproject.toml": project_file(study).encode("ascii"),
        "LICENSE": LICENSE.encode("ascii"),
        STUDY_FILE: study.canonical.encode("ascii"),
    }


def main(arguments: list[str]) -> int:
    """Write a bundle's files into a folder, for `flwr run FOLDER` on a stock SuperLink."""
    if len(arguments) != 2:
        print("usage: python -m server.bundle STUDY FOLDER", file=sys.stderr)
        return 2
    try:
        study = load_study(Path(arguments[0]))
    except ArchipelError as error:
        print(error, file=sys.stderr)
        return 2
    folder = Path(arguments[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in bundle_files(study).items():
        (folder / name).write_bytes(content)
    print(f"{folder}: {study.name} {study.sha256}; run it with: flwr run {folder} CONNECTION")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
