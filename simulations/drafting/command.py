"""The command `archipel new`; nothing heavy is imported until it runs."""

import argparse
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from configs.errors import RunError

if TYPE_CHECKING:
    from simulations.drafting.variables import Variable

_YAML = (".yaml", ".yml")


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `new` to the commands."""
    new = commands.add_parser("new", help="draft a study file from data dictionaries and headers, never from values")
    about = (
        "a data dictionary (REDCap's, or CSV or YAML with name, type, ...), or a data file: its header alone is read"
    )
    new.add_argument("files", type=Path, nargs="+", metavar="FILE", help=about)
    new.add_argument("--target", metavar="COLUMN", help="the outcome (default: a TODO)")
    new.add_argument("--patient-id", metavar="COLUMN", help="whose a row is (default: as the files say, or a TODO)")
    new.add_argument("--name", default="new-study", help="the study's name (default: new-study)")
    new.add_argument("--out", type=Path, metavar="FILE", help="a new file to write (default: print it)")
    new.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> int:
    """Draft a study file.

    Raises:
        ArchipelError: a file cannot be read, or the draft would replace another.
    """
    from simulations.drafting.draft import draft

    out: Path | None = arguments.out
    if out is not None and out.exists():
        raise RunError(f"--out {out}: expected a new file, found one; give another name")
    variables, data = _gathered(arguments.files)
    folder = Path.cwd() if out is None else out.resolve().parent
    paths = [os.path.relpath(path.resolve(), folder) for path in data]
    text = draft(variables, paths, target=arguments.target, patient_id=arguments.patient_id, name=arguments.name)
    if out is None:
        print(text, end="")
        return 0
    try:
        with out.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise RunError(f"--out {out}: cannot be written: {error.strerror}; give another name") from None
    todo = sum("TODO" in line for line in text.split("\n")[2:])
    print(f"{out}: {todo} lines to fill in (TODO); then: archipel plan {out}")
    return 0


def _gathered(files: Sequence[Path]) -> "tuple[list[Variable], list[Path]]":
    """Return every column that the files name, once, and the data files; say how each file was taken."""
    from simulations.drafting.dictionaries import keys_of, of_table, of_yaml
    from simulations.drafting.headers import first_line, header_of, is_parquet

    documented: dict[str, Variable] = {}
    headers: dict[Path, list[Variable]] = {}
    for path in files:
        if path.suffix.lower() in _YAML:
            _add(documented, of_yaml(path))
            _say(f"{path}: a data dictionary")
            continue
        line = first_line(path) if not is_parquet(path) else None
        if line is not None and (keys := keys_of(line.cells)) is not None:
            _add(documented, of_table(path, keys, line.delimiter))
            _say(f"{path}: a data dictionary")
            continue
        headers[path] = header_of(path)
        _say(f"{path}: data; its {len(headers[path])} names were read, and no row")
    columns = dict(documented)
    for variables in headers.values():
        for variable in variables:
            before = columns.get(variable.name)
            if before is None:
                columns[variable.name] = variable
            elif variable.is_id and not before.type:
                columns[variable.name] = replace(before, is_id=True)
    return [_absent(variable, headers) for variable in columns.values()], list(headers)


def _absent(variable: "Variable", headers: "dict[Path, list[Variable]]") -> "Variable":
    """Return a variable; where a header lacks it, with a remark about that."""
    lacking = [path.name for path, names in headers.items() if variable.name not in {each.name for each in names}]
    if not lacking:
        return variable
    remark = f"NOT in the header of {', '.join(lacking)}"
    return replace(variable, label=f"{remark}; {variable.label}" if variable.label else remark)


def _add(documented: "dict[str, Variable]", variables: "Iterable[Variable]") -> None:
    for variable in variables:
        if variable.name in documented:
            raise RunError(f"{variable.source}: column {variable.name!r} is described twice; remove one")
        documented[variable.name] = variable


def _say(text: str) -> None:
    print(text, file=sys.stderr)
