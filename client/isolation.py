"""Removal of the network from a process, permanently.

The worker sees patients and talks to nobody. What it may reach all the same, data bases that site.yaml lists, it
reaches through client/forwarder.py.

A new network namespace has no interface but a loopback that is down. An unprivileged process makes one inside a user
namespace of its own, where the kernel allows that; `archipel-site check` says whether it does.
"""

import ctypes
import os
import signal
import threading
from pathlib import Path

from configs.site import SiteConfig

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000


PR_SET_PDEATHSIG = 1


def worker_variables(config: SiteConfig) -> tuple[str, ...]:
    """Return the names of the variables that the process which sees patients gets beside the usual ones.

    They are the addresses of the data bases that site.yaml names, and what libpq and Kerberos read.
    """
    return (*config.secrets, "PG*", "KRB5*") if config.secrets else ()


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent ends, however that ends (Linux; elsewhere nothing happens)."""
    try:
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    except (OSError, AttributeError):
        return


def leave_network() -> bool:
    """Leave the network; False where the kernel does not allow it, and then nothing has changed.

    To be called before any thread is started.
    """
    assert threading.active_count() == 1
    uid, gid = os.getuid(), os.getgid()
    if _unshare(CLONE_NEWNET):
        return True
    if not _unshare(CLONE_NEWUSER | CLONE_NEWNET):
        return False
    process = Path("/proc/self")
    try:  # files keep the owner that they have
        (process / "setgroups").write_text("deny")
        (process / "uid_map").write_text(f"{uid} {uid} 1")
        (process / "gid_map").write_text(f"{gid} {gid} 1")
    except OSError:
        pass  # the owner is then shown as nobody; permissions are the same
    return True


def _unshare(flags: int) -> bool:
    try:
        return int(ctypes.CDLL(None, use_errno=True).unshare(flags)) == 0
    except (OSError, AttributeError):  # not Linux
        return False
