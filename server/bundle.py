"""The bundle of a run: the study and nothing that can be executed.

Flower sends a bundle (FAB) to every node. Ours names the apps that are installed with Archipel, and carries one study
in its canonical form; a node that finds anything else in a bundle refuses it (configs/bundle.py).
"""

import hashlib

from flwr.cli.build import build_fab_from_files

from configs.bundle import LICENSE, STUDY_FILE, project_file
from configs.schema import Study


def build_bundle(study: Study) -> tuple[bytes, str]:
    """The bundle and its SHA-256, the same for the same study."""
    files = {
        "pyproject.toml": project_file(study).encode("ascii"),
        "LICENSE": LICENSE.encode("ascii"),
        STUDY_FILE: study.canonical.encode("ascii"),
    }
    content, _ = build_fab_from_files(files)
    return content, hashlib.sha256(content).hexdigest()
