"""systemd units for a node and for a coordinator: no root, no capability, no writable path but the folder's own.

Text only; where it goes is the administrator's to decide. `systemd-analyze security` rates the units (a test does).

>>> unit("hospital's node", "archipel-site", Path("/opt/archipel/bin"), Path("/srv/archipel")).splitlines()[0]
'[Unit]'
>>> unit("node", "archipel-site", Path("/opt/archipel/bin"), Path("/srv/our node"))
Traceback (most recent call last):
    ...
configs.errors.ConfigError: /srv/our node: 1 problem
  expected a path of letters, digits and ._/+@- alone, as systemd reads it; move the folder
"""

import re
from pathlib import Path

from configs.errors import ConfigError

_PATH = re.compile(r"/[A-Za-z0-9._/+@-]+")
_TEMPLATE = """\
[Unit]
Description=Archipel: {description}
Wants=network-online.target
After=network-online.target

[Service]
Type=exec
User=archipel
WorkingDirectory={folder}
ExecStart={program} -C {folder} start
# Secrets by name: HTTPS_PROXY with its password, for instance. Mode 0600, owner root; the leading - lets it be absent.
EnvironmentFile=-/etc/archipel/{name}.env
Environment=OMP_NUM_THREADS=1
Restart=always
RestartSec=5
# The first SIGTERM lets a round under way end; after this long everything is killed, and the ledger counts it as spent.
KillMode=mixed
TimeoutStopSec=300
UMask=0077

# Nothing is writable but the folder; no device, no capability, no way to gain one.
ProtectSystem=strict
ReadWritePaths={folder}
ProtectHome=read-only
PrivateTmp=yes
# For a GPU: PrivateDevices=no and DeviceAllow=/dev/nvidia0 rw (and nvidiactl, nvidia-uvm).
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
_WORKER = """\
# The process that sees patients leaves the network by itself, for namespaces of its own: these two kinds, no other.
# Listed data bases (worker_network) it reaches through a process that stays in this unit's network.
RestrictNamespaces=user net"""


def unit(description: str, name: str, programs: Path, folder: Path, *, worker: bool = True) -> str:
    """The unit of a command (`name`, in the folder `programs`) that serves `folder`.

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
    return _TEMPLATE.format(
        description=description,
        name=name,
        program=program,
        folder=folder,
        namespaces=_WORKER if worker else "RestrictNamespaces=yes",
    )
