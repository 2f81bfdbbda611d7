"""systemd units for a node and for a coordinator.

They have no root, no capability, and no writable path but the folder's own. Text only; where it goes is the
administrator's to decide. `systemd-analyze security` rates the units (a test does).

>>> "User=archipel" in unit("the node", "archipel-site", Path("/opt/archipel/bin"), Path("/srv/archipel")).splitlines()
True
>>> unit("node", "archipel-site", Path("/opt/archipel/bin"), Path("/srv/our node"))  # doctest: +ELLIPSIS
Traceback (most recent call last):
    ...
configs.errors.ConfigError: /srv/our node: expected a path of letters, digits and ._/+@- alone, as systemd ...
"""

import re
from pathlib import Path

from configs.errors import ConfigError

_PATH = re.compile(r"/[A-Za-z0-9._/+@-]+")
_TEMPLATE = """\
# Install it as root. The user `archipel` must be able to run the program below (not under /root){data}:
#   useradd --system --user-group --shell /usr/sbin/nologin archipel
#   chown -R archipel: {folder}
#   {program} -C {folder} start --print-systemd > /etc/systemd/system/{name}.service
#   systemctl daemon-reload && systemctl enable --now {name}
# Every other command is this user's too, or files appear that the service cannot write:
#   runuser -u archipel -- {program} -C {folder} {other}
{check}[Unit]
Description=Archipel: {description}
Wants=network-online.target
After=network-online.target

[Service]
Type=exec
User=archipel
WorkingDirectory={folder}
ExecStart={program} -C {folder} start
# Secrets by name: HTTPS_PROXY with its password, or what site.yaml's url_env names. Mode 0600, owner root; the leading
# - lets it be absent.
EnvironmentFile=-/etc/archipel/{name}.env
Environment=OMP_NUM_THREADS=1
# Code comes from the installation alone: no folder that somebody else can write is on Python's path.
Environment=PYTHONSAFEPATH=1
UnsetEnvironment=PYTHONPATH PYTHONHOME PYTHONSTARTUP PYTHONUSERBASE LD_PRELOAD
Restart=always
RestartSec=5
# SIGTERM ends a node after the round under way, and a coordinator at once: its run can be resumed. What has not ended
# in time is killed, and a hospital's ledger counts it as spent. A process that the kernel kills for want of memory is
# the program's own to replace.
KillMode=mixed
TimeoutStopSec=300
OOMPolicy=continue
UMask=0077
# No picture of a process's memory, where patients and keys are, is ever written to disk.
LimitCORE=0

# Nothing is writable but the folder; no device, no capability, no way to gain one.
ProtectSystem=strict
ReadWritePaths={folder}
ProtectHome=read-only
PrivateTmp=yes
PrivateDevices=yes
NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectClock=yes
ProtectHostname=yes
ProtectProc=invisible
RestrictRealtime=yes
RestrictSUIDSGID=yes
RemoveIPC=yes
LockPersonality=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged
SystemCallErrorNumber=EPERM
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
{namespaces}

[Install]
WantedBy=multi-user.target
"""
_NAMESPACES = """\
# The process that sees patients leaves the network by itself, for namespaces of its own: these two kinds, no other.
# Listed data bases (worker_network) it reaches through a process that stays in this unit's network.
RestrictNamespaces=user net"""
_CHECK = """\
# With the service's own variables, HTTPS_PROXY among them:
#   systemd-run -q --pipe --wait --uid=archipel -p EnvironmentFile=-/etc/archipel/{name}.env {program} -C {folder} check
"""


def unit(description: str, name: str, programs: Path, folder: Path, *, worker: bool = True) -> str:
    """Return the unit of a command (`name`, in the folder `programs`) that serves `folder`.

    Args:
        worker: whether a process of it must be able to leave the network.

    Raises:
        ConfigError: a path holds what systemd would read otherwise.
    """
    program = programs / name
    for path in (program, folder):
        if not _PATH.fullmatch(str(path)):
            raise ConfigError(
                str(path), ["expected a path of letters, digits and ._/+@- alone, as systemd reads it; move the folder"]
            )
    paths = {"name": name, "program": program, "folder": folder}
    return _TEMPLATE.format(
        **paths,
        description=description,
        data=" and read the data" if worker else "",
        other="review" if worker else "status",
        check=_CHECK.format(**paths) if worker else "",
        namespaces=_NAMESPACES if worker else "RestrictNamespaces=yes",
    )
