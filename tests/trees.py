"""Write each room's tree of files into its README, a line a file: the first line of the file's docstring; and options.

python -m tests.trees    # or: make docs; a test compares
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.options import with_options

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("configs", "strategies", "client", "server", "simulations")
BEGIN, END = "<!-- tree -->\n", "<!-- end -->\n"


def purpose(path: Path) -> str:
    """Return the first line of a module's docstring, without its full stop."""
    docstring = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
    return docstring.partition("\n")[0].rstrip(".")


def lines(folder: Path, indent: str = "") -> Iterator[str]:
    """Yield a line a file, then each sub-folder with its own."""
    modules = sorted(path for path in folder.glob("*.py") if path.name != "__init__.py")
    folders = sorted(path.parent for path in folder.glob("*/__init__.py"))
    width = max([len(path.name) for path in modules] + [len(path.name) + 1 for path in folders], default=0) + 2
    for path in modules:
        yield f"{indent}{path.name:<{width}}{purpose(path)}"
    for path in folders:
        yield f"{indent}{path.name + '/':<{width}}{purpose(path / '__init__.py')}".rstrip()
        yield from lines(path, indent + "  ")


def tree(room: str) -> str:
    """Return a room's tree as a block of Markdown."""
    return "```\n" + "\n".join(lines(ROOT / room)) + "\n```\n"


def with_tree(room: str, text: str) -> str:
    """Return a room's README with its tree as the files are now."""
    begin, end = text.index(BEGIN) + len(BEGIN), text.index(END)
    return text[:begin] + tree(room) + text[end:]


def main() -> None:
    """Write the trees, and the picture of the README."""
    for room in ROOMS:
        readme = ROOT / room / "README.md"
        readme.write_text(with_options(room, with_tree(room, readme.read_text("utf-8"))), "utf-8")
    subprocess.run([sys.executable, str(ROOT / ".github" / "data_flow.py")], check=True)


if __name__ == "__main__":
    main()
