"""Findings of `archipel-site check`: what was checked, and who must fix what is wrong.

>>> print(render([Finding("disk", WRONG, "40 MB free", "hospital IT", "make room")]))
WRONG    disk: 40 MB free
             who:  hospital IT
             what: make room
1 thing to fix
"""

from dataclasses import dataclass

from configs.shown import guarded

OK, NOTE, WARNING, WRONG = "ok", "note", "warning", "WRONG"
IT, NETWORK, CONSORTIUM, DATA = "hospital IT", "the hospital's network team", "the consortium", "whoever keeps the data"
DATABASE = "whoever runs the data base"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was checked. Where it is wrong, `who` must do `todo`."""

    check: str
    verdict: str
    text: str
    who: str = ""
    todo: str = ""


def render(findings: list[Finding]) -> str:
    """Return the findings as text; under each problem stands who should fix it and how."""
    lines = []
    for finding in findings:
        text = guarded(finding.text).replace("\n", f"\n{'':12} ")  # no line of others' words begins as one of ours
        lines.append(f"{finding.verdict:8} {finding.check}: {text}")
        if finding.who:
            lines += [f"             who:  {finding.who}", f"             what: {guarded(finding.todo)}"]
    bad = sum(f.verdict == WRONG for f in findings)
    odd = sum(f.verdict == WARNING for f in findings)
    if bad:
        lines.append(f"{bad} thing{'s' if bad > 1 else ''} to fix")
    else:
        lines.append(f"all is well{f', with {odd} to know of' if odd else ''}")
    return "\n".join(lines)


def exit_code(findings: list[Finding]) -> int:
    """Return the exit code for monitoring: 0 all is well, 1 something to know of, 2 something is wrong."""
    verdicts = {finding.verdict for finding in findings}
    return 2 if WRONG in verdicts else 1 if WARNING in verdicts else 0
