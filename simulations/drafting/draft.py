r"""The text of a first study file.

What the documentation says is written down; what it does not say stands there as `TODO`, which no command accepts, with
the reason beside it. The same documentation gives the same bytes.

>>> print(feature_line(Variable("age", "number", "Age at admission", "years", 20.0, 90.0)))
  age: {type: number, range: [20, 90], unit: years}  # Age at admission
>>> print(feature_line(Variable("chol", "number", unit="mg/dl")))
  chol: {type: number, range: TODO, unit: mg/dl}  # TODO the public range: no file says it; never measure it on patients
"""

import re
from collections.abc import Sequence

from configs.errors import RunError
from configs.shown import escaped, short
from configs.strict_yaml import parse_yaml, read_scalar
from simulations.drafting.variables import NUMBER, Variable

TODO = "TODO"
_PLAIN_WORD = re.compile(r"(?!(?:true|false|null)$)[A-Za-z0-9_.+-]+", re.IGNORECASE)
_LABEL = 90
_HEAD = """\
# A first draft, written by archipel new from public documentation and headers alone; no patient was read for it.
# Fill in each TODO: archipel explain KEY says what a key is, archipel plan FILE what is still missing.
"""
_TAIL = """\
cohort: {{{hospitals}}}  # TODO the round number of patients that each hospital announces in public
model: {{name: logistic}}
training: auto  # archipel complete writes it out, from public facts
privacy: {{mode: local, epsilon: 3.0, delta: 1.0e-5}}  # epsilon per patient: to be agreed with the hospitals
evaluation: {{test_fraction: 0.3}}
simulation:  # read by the simulator alone: copies of data on this machine
  sites:
{sites}
"""


def feature_line(variable: Variable) -> str:
    """Return the line of one feature."""
    keys, reasons = [f"type: {variable.type or TODO}"], []
    if not variable.type:
        reasons.append(
            "TODO type: number (with its public range and unit) or category (with its values): no file says it"
        )
    elif variable.type == NUMBER:
        low, high = variable.low, variable.high
        if low is not None and high is not None and low < high:
            keys.append(f"range: [{low:.10g}, {high:.10g}]")
        else:
            keys.append(f"range: {TODO}")
            ends = f"the file says only one end, {low if high is None else high:.10g}" if low != high else ""
            reasons.append(f"TODO the public range: {ends or 'no file says it'}; never measure it on patients")
    elif len(variable.values) > 1:
        keys.append(f"values: [{', '.join(map(_word, variable.values))}]")
    else:
        keys.append(f"values: {TODO}")
        reasons.append("TODO the public values: no file lists them")
    keys += [f"unit: {_scalar(variable.unit)}"] if variable.unit else []
    keys += [f"missing: [{', '.join(map(_word, variable.missing))}]"] if variable.missing else []
    return f"  {_scalar(variable.name)}: {{{', '.join(keys)}}}{_comment([*reasons, *_about(variable)])}"


def _about(variable: Variable) -> list[str]:
    """Return what the documentation says for people."""
    pairs = zip(variable.values, variable.meanings, strict=False)
    meanings = ", ".join(f"{value} = {meaning}" for value, meaning in pairs if meaning)
    return [short(text, _LABEL) for text in (variable.label, meanings) if text]


def draft(
    variables: Sequence[Variable], data: Sequence[str], *, target: str | None, patient_id: str | None, name: str
) -> str:
    """Return the text of a study file.

    Args:
        variables: in the order of the files; no name twice.
        data: paths of data files, as they will stand under `simulation`.
        target: the outcome's column, where it was named; `patient_id`: the column of ids.

    Raises:
        RunError: a column that was named is not there.
    """
    by_name = {variable.name: variable for variable in variables}
    for option, column in (("--target", target), ("--patient-id", patient_id)):
        if column is not None and column not in by_name:
            raise RunError(f"{option}: expected a column of these files, found {column!r}; correct it")
    ids = patient_id or next((variable.name for variable in variables if variable.is_id), None)
    features = [v for v in variables if v.name not in (target, ids) and not v.left_out and not v.is_id]
    others = [v for v in variables if v.name not in (target, ids) and (v.left_out or v.is_id)]
    sites = _sites(data)
    text = "\n".join(
        [
            f"{_HEAD}name: {name}",
            "purpose:  # TODO one sentence: every hospital that reviews the study reads it",
            *_task(by_name.get(target or "")),
            _patient(by_name.get(ids or "")),
            "features:  # public ranges and values, agreed beforehand, never measured on patients",
            *map(feature_line, features),
            *(f"  # {_scalar(v.name)}: left out: {v.left_out or 'it says who the patient is'}" for v in others),
            _TAIL.format(
                hospitals=", ".join(f"{site}: {TODO}" for site, _ in sites),
                sites="\n".join(f"    {site}: {{connector: {kind}, path: {path}}}" for site, (kind, path) in sites),
            ),
        ]
    )
    parse_yaml(text, "the draft")  # whatever a dictionary says, what is written can be read
    return text


def _task(target: Variable | None) -> list[str]:
    if target is None:
        return [
            "task:",
            f"  type: {TODO}  # TODO binary, multiclass, regression, survival or counts",
            "  target:  # TODO the column with the outcome: no file says which it is; take it out of the features",
        ]
    keys = f"target: {_scalar(target.name)}"
    if target.type == NUMBER:
        return [f"task: {{type: regression, {keys}, range: {_range(target)}}}{_comment(_about(target))}"]
    kind = "binary" if len(target.values) == 2 else "multiclass"
    classes = f"[{', '.join(map(_word, target.values))}]" if len(target.values) > 1 else TODO
    why = [] if len(target.values) > 1 else ["TODO type and classes: no file lists the outcome's values"]
    return [f"task: {{type: {kind}, {keys}, classes: {classes}}}{_comment([*why, *_about(target)])}"]


def _range(target: Variable) -> str:
    return f"[{target.low:.10g}, {target.high:.10g}]" if target.is_described else TODO


def _patient(ids: Variable | None) -> str:
    if ids is None:
        return f"patient_id: {TODO}  # TODO the column that says whose a row is; null only if no patient has two rows"
    return f"patient_id: {_scalar(ids.name)}{_comment(['the column that says whose a row is: see that this is so'])}"


def _sites(data: Sequence[str]) -> list[tuple[str, tuple[str, str]]]:
    """Return a hospital for each data file, named by its file, and how it is read."""
    sites: dict[str, tuple[str, str]] = {}
    for path in data:
        stem = re.sub(r"[^a-z0-9_-]+", "-", path.replace("\\", "/").rsplit("/", 1)[-1].rsplit(".", 1)[0].lower())
        site = stem.strip("-_")[:60] or "hospital"
        site = site if site not in sites else f"{site}-{len(sites) + 1}"
        sites[site] = "parquet" if path.lower().endswith((".parquet", ".pq")) else "csv", _scalar(path)
    return list((sites or {"hospital": ("csv", TODO)}).items())


def _comment(parts: Sequence[str]) -> str:
    text = "; ".join(escaped(part) for part in parts)
    return f"  # {text}" if text else ""


def _word(text: str) -> str:
    """Return a word of a list, which keeps what stands in the file."""
    return text if _PLAIN_WORD.fullmatch(text) else _quoted(text)


def _scalar(text: str) -> str:
    """Return a text as YAML that is read back as this very text."""
    return text if re.fullmatch(r"[A-Za-z_./~][\w ./%-]*", text) and read_scalar(text) == text else _quoted(text)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
