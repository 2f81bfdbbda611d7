"""Programs that some tests need, from Debian's packages where that is possible."""

import contextlib
import os
import shutil
import subprocess


def install(package: str, timeout_s: int = 120) -> None:
    """As root on a Debian, without starting its service; elsewhere nothing happens."""
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        return
    quiet = os.environ | {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    command = ["apt-get", "install", "--yes", "--quiet", "--no-install-recommends", package]
    with contextlib.suppress(subprocess.TimeoutExpired):
        if subprocess.run(command, env=quiet, capture_output=True, timeout=timeout_s, check=False).returncode:
            subprocess.run(["apt-get", "update"], env=quiet, capture_output=True, timeout=120, check=False)
            subprocess.run(command, env=quiet, capture_output=True, timeout=timeout_s, check=False)
