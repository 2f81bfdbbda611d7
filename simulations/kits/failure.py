"""What a researcher reads where the code of a kit fails on their own machine: its line, not ours.

At a hospital the text of such a failure goes nowhere, as it may hold a patient's value; nothing here is used there.
"""

import traceback

from configs.errors import KitError
from configs.kit import PREFIX


def explained(error: Exception) -> KitError | None:
    """Return the failure as a sentence that names the kit's file and line; None where no code of a kit failed.

    >>> explained(ValueError("ours")) is None
    True
    """
    place = _place(error)
    if place is None:
        return None
    package, line = place
    name = package.partition(".")[0].removeprefix(PREFIX)
    what = error.msg if isinstance(error, SyntaxError) else str(error)
    return KitError(
        f"kit {name}: {package}, line {line}, fails: {type(error).__name__}: {what}; mend it there, "
        "then: archipel kit test"
    )


def _place(error: Exception) -> tuple[str, int] | None:
    """Return the module and line of a kit where it failed: of what it called, the last line of the kit's own."""
    if isinstance(error, SyntaxError) and (module := _module(error.filename)):
        return module, error.lineno or 1
    lines = [
        (str(frame.f_globals.get("__name__", "")), line)
        for frame, line in traceback.walk_tb(error.__traceback__)
        if str(frame.f_globals.get("__name__", "")).startswith(PREFIX)
    ]
    return lines[-1] if lines else None


def _module(path: str | None) -> str:
    """Return the module of a kit that a path names, empty where it names none."""
    name = (path or "").removeprefix("kit/").removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    return name if name.startswith(PREFIX) else ""
