"""The permitted content of a run's bundle: a fixed project file, a licence and one study.

No code, no setting. The coordinator writes a bundle from this and a node compares with it byte for byte, so that there
is nothing to parse.
"""

import io
import zipfile

from configs.errors import WireError
from configs.schema import Study, canonical_json

STUDY_FILE = "study.json"
LICENSE = "Apache-2.0\n"
MAX_BUNDLE_BYTES = 2_000_000
_CONTENT = ".info/CONTENT"  # Flower's own list of the files, with their hashes


def project_file(study: Study) -> str:
    """Return the project file that Flower asks for, as Flower lays it out. Its apps are the installed ones."""
    return f"""[project]
name = "archipel-study"
version = "1.0.0"
description = "{study.name} {study.sha256}"
dependencies = [
    "flwr>=1.41.0,<1.42",
]

[project.license]
file = "LICENSE"

[tool.flwr.app]
publisher = "archipel"
fab-format-version = 1
flwr-version-target = "1.41.0"
fab-include = [
    "LICENSE",
    "{STUDY_FILE}",
]

[tool.flwr.app.components]
serverapp = "server.flower:app"
clientapp = "client.flower:app"

[tool.flwr.app.config]
study = {canonical_json(study.canonical)}
"""


def check_bundle(content: bytes, study: Study) -> None:
    """Compare a bundle with the one bundle that this study may have.

    Raises:
        WireError: it holds anything else. The node has executed nothing of it.
    """
    if len(content) > MAX_BUNDLE_BYTES:
        raise WireError(f"bundle: expected at most {MAX_BUNDLE_BYTES} bytes, found more")
    expected = {
        "pyproject.toml": project_file(study).encode("ascii"),
        "LICENSE": LICENSE.encode("ascii"),
        STUDY_FILE: study.canonical.encode("ascii"),
    }
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as bundle:
            names = bundle.namelist()
            if sorted(names) != sorted([*expected, _CONTENT]):
                raise WireError("bundle: expected one study and no code, found other files; nothing of it was executed")
            for entry in bundle.infolist():
                if entry.file_size > MAX_BUNDLE_BYTES:
                    raise WireError("bundle: expected small files, found one that unpacks to more")
            contents = {name: bundle.read(name) for name in expected}
    except (zipfile.BadZipFile, OSError, EOFError, RuntimeError, NotImplementedError, ValueError):
        raise WireError("bundle: expected Flower's format, found something that cannot be read") from None
    for name, expected_bytes in expected.items():
        if contents[name] != expected_bytes:
            raise WireError(f"bundle: {name} is not the approved study's; nothing of it was executed")
