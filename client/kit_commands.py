"""The commands `archipel-site kit add|list|show|approve|withdraw`."""

import argparse
import getpass
import textwrap
from pathlib import Path

from configs.errors import RunError
from configs.shown import escaped


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command and its actions."""
    kit = commands.add_parser("kit", help="study kits: researchers' own models, which a person here reads and approves")
    actions = kit.add_subparsers(title="actions", required=True, metavar="ACTION", help="what to do")
    add = actions.add_parser("add", help="unpack one; nothing of it is executed")
    add.add_argument("wheel", type=Path, metavar="WHEEL", help="the file, which came by mail or disk")
    add.set_defaults(command=_add)
    listed = actions.add_parser("list", help="those that are here, and their state")
    listed.set_defaults(command=_list)
    show = actions.add_parser("show", help="one kit: files, imports, digest, signatures, what it may do, the probe")
    show.add_argument("kit", metavar="NAME|DIGEST", help="its name, or its digest's first digits")
    show.add_argument(
        "--diff", metavar="VERSION", help="what changed since another version that is here (default: the page)"
    )
    show.add_argument("--source", action="store_true", help="its whole text")
    show.set_defaults(command=_show)
    approve = actions.add_parser("approve", help="let studies open it here")
    approve.add_argument("digest", metavar="DIGEST", help="its first digits, twelve or more")
    approve.set_defaults(command=_approve)
    withdraw = actions.add_parser("withdraw", help="let no study open it any more")
    withdraw.add_argument("digest", metavar="DIGEST", help="its first digits, twelve or more")
    withdraw.add_argument("--why", required=True, help="for this hospital's own records; it does not leave")
    withdraw.set_defaults(command=_withdraw)


def _add(arguments: argparse.Namespace) -> int:
    from client.folder import SiteFolder
    from client.kits import FEWEST_DIGITS, Kits
    from configs.records.site_journal import KitAdded

    folder = SiteFolder.open(arguments.folder)
    kit, known = Kits(folder.config).add(arguments.wheel)
    assert kit.files is not None
    if not known:
        about = kit.files.about
        folder.audit.note(KitAdded(kit=kit.sha256, name=about.name, version=about.version, by=getpass.getuser()))
    print(f"kit {kit.label}: {'is here already' if known else 'added'}; digest {kit.sha256}")
    print("compare the digest with the study's, and with the researcher by telephone; nothing of it was executed")
    digits = kit.sha256[:FEWEST_DIGITS]
    print(f"next: {folder.typed(f'kit show {digits}')}, then {folder.typed(f'kit approve {digits}')}")
    return 0


def _list(arguments: argparse.Namespace) -> int:
    from client.folder import SiteFolder
    from client.kits import Kits
    from client.views.kit_pages import state_line

    config = SiteFolder.open(arguments.folder).config
    lines = [state_line(config, kit) for kit in Kits(config).all()]
    print("\n".join(lines) or "no kit is here; add one: archipel-site kit add WHEEL")
    return 0


def _show(arguments: argparse.Namespace) -> int:
    from client.folder import SiteFolder
    from client.kit_probe import probed
    from client.kits import Kits
    from client.views.kit_pages import difference, kit_page

    config = SiteFolder.open(arguments.folder).config
    kits = Kits(config)
    chosen = kits.named(arguments.kit)
    if not chosen:
        raise RunError(
            f"{escaped(arguments.kit[:64])}: expected a kit's name or digest, found none such; "
            "see: archipel-site kit list"
        )
    for kit in chosen:
        if arguments.diff and kit.files is not None:
            try:
                print("\n".join(map(escaped, difference(kits, kit, arguments.diff))) or "nothing changed")
            except KeyError:
                raise RunError(
                    "--diff: expected a version that is here, found none; see: archipel-site kit list"
                ) from None
            continue
        page = kit_page(config, kit, probed(kit.files) if kit.files and not kit.flaw else "")
        print(f"kit {page.label}")
        for row in page.rows:
            text = "\n".join(line for part in row.text.splitlines() for line in textwrap.wrap(part, 100) or [""])
            print(f"  {row.title:10} " + textwrap.indent(text, " " * 13).lstrip())
        if arguments.source and kit.files is not None:
            for path, content in kit.files.sources.items():
                print(f"\n{path}")
                for line in content.decode("utf-8", "replace").splitlines():
                    print(f"| {_code(line)}")
    return 0


def _code(line: str) -> str:
    """Return a line of a kit's text with its indentation, escaped."""
    stripped = line.lstrip(" ")
    return " " * (len(line) - len(stripped)) + escaped(stripped)


def _approve(arguments: argparse.Namespace) -> int:
    from client.folder import SiteFolder
    from client.kits import Kits
    from configs.records.site_journal import KitApproved

    folder = SiteFolder.open(arguments.folder)
    kit = Kits(folder.config).approve(arguments.digest, getpass.getuser())
    assert kit.approval is not None
    about = kit.approval
    folder.audit.note(
        KitApproved(kit=kit.sha256, name=about.name, version=about.version, by=about.by, signers=kit.signers)
    )
    print(f"approved: kit {kit.label}; each study that needs it is still decided on its own: archipel-site review")
    return 0


def _withdraw(arguments: argparse.Namespace) -> int:
    from client.folder import SiteFolder
    from client.kits import Kits
    from configs.records.site_journal import KitWithdrawn

    folder = SiteFolder.open(arguments.folder)
    kit = Kits(folder.config).withdraw(arguments.digest)
    folder.audit.note(KitWithdrawn(kit=kit.sha256, by=getpass.getuser(), why=arguments.why))
    print(f"kit {kit.label}: no longer approved; no study opens it from its next message on")
    return 0
