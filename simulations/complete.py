"""Complete an unfinished study: write out what `training: auto` stands for.

What follows from which public facts stands in strategies/settings.py. Here it gets into a file, with a reason in each
line, or into the memory of a command that simulates, plans or audits. A finished study stays as it is, to the byte.
"""

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.errors import ConfigError, RunError
from configs.files import write_atomically
from configs.load import study_of_file
from configs.marks import Marks
from configs.schema import Study
from configs.strict_yaml import dump_yaml, parse_yaml, read_marked
from server.starts import write_start
from simulations.kits.here import bring_start, kit_warnings
from simulations.yaml_text import with_key, with_section
from strategies.models.registry import architecture_of
from strategies.settings import Setting, settings_of

_PATH = re.compile(r"""((?:path|sites): +["']?)([^\s{}"',][^\s{}"',]*)""")
_ABOUT = "written by archipel complete, from public facts alone"


@dataclass(frozen=True)
class Completed:
    """A finished study, and the settings that were left open in its file: none of a file that was finished."""

    path: Path
    study: Study
    settings: tuple[Setting, ...]

    @property
    def line(self) -> str:
        """Return what was completed, in one line."""
        if not self.opened_training:
            return f"{self.path}: what the model leaves open is completed; archipel complete writes it out"
        training, privacy = self.study.training, self.study.privacy
        clip = f"clip norm {privacy.clip_norm:g}, " if privacy.keys.budgeted else ""
        return (
            f"{self.path}: training: auto is {training.strategy.name}, {training.rounds} rounds, {clip}"
            f"learning rate {training.local.learning_rate:g}; archipel complete writes it out"
        )

    @property
    def opened_training(self) -> bool:
        """Return whether the file left its training open."""
        return any(setting.section == "training" for setting in self.settings)

    def text(self, folder: Path) -> str:
        """Return the text of the finished file, for a file in this folder: the same bytes where nothing was open."""
        text = _moved(self.path.read_text("utf-8"), self.path.resolve().parent, folder.resolve())
        if not self.settings:
            return text
        for setting in self.settings:
            entry = f"{setting.key}: {_plain(setting.value)}  # {setting.why}"
            if not setting.section:
                text = with_section(text, setting.key, [entry], before="model")
            elif setting.section != "training":
                text = with_key(text, setting.section, entry)
        if not self.opened_training:
            return text if self._is_study_of(text, folder) else dump_yaml(self.study.to_file())
        text = with_section(text, "training", [f"training:  # {_ABOUT}", *_block(self.settings)], before="privacy")
        return text if self._is_study_of(text, folder) else dump_yaml(self.study.to_file())

    def _is_study_of(self, text: str, folder: Path) -> bool:
        """Return whether a text says the very study, with the very files."""
        try:
            study = study_of_file(parse_yaml(text, str(self.path)), folder / self.path.name)
        except ConfigError:  # its form is one that is not understood here
            return False
        return study.sha256 == self.study.sha256 and _files(study) == _files(self.study)


def completed(path: Path) -> Completed:
    """Return the finished study of a file, completed where it leaves settings open.

    Raises:
        ConfigError: the file cannot be read or holds mistakes; all of them are listed.
    """
    marks = read_marked(path)
    return finished(marks.document, path, marks)


def load_completed(path: Path) -> Study:
    """Return the finished study of a file; what was completed is said in a line beside the output.

    Raises:
        ConfigError: as `completed`.
    """
    completion = completed(path)
    if completion.settings:
        print(completion.line, file=sys.stderr)
    return completion.study


def finished(document: Any, path: Path, marks: Marks | None = None) -> Completed:
    """Return the finished study of a file's document.

    Args:
        marks: the places of the document's keys, where it is just as the file has it.

    Raises:
        ConfigError: it holds mistakes; all of them are listed.
    """
    draft = study_of_file(document, path, unfinished=True, marks=marks)
    bring_start(draft, path.resolve().parent)
    if not draft.is_unfinished:
        return Completed(path, draft, ())
    open_settings = settings_of(draft) if draft.training.auto else ()
    settings = tuple(s for s in open_settings if s.section == "training" or s.key not in _section(document, s))
    settings += tuple(Setting(*each) for each in architecture_of(draft).settings(draft.seed))
    whole: dict[str, Any] = {**document, **({"training": {}} if draft.training.auto else {})}
    for setting in settings:
        within = {setting.key: setting.value}
        whole |= {setting.section: {**whole[setting.section], **within}} if setting.section else within
    return Completed(path, study_of_file(whole, path), settings)


def write_completed(path: Path, out: Path) -> str:
    """Write the finished file whole or not at all, and return what was done, in a line or one for each setting.

    Raises:
        ConfigError: the file cannot be read or holds mistakes.
        RunError: the finished file cannot be written.
    """
    completion = completed(path)
    text = completion.text(out.parent)
    if not completion.settings and out.resolve() == path.resolve():
        return f"{path}: finished already, nothing was changed"
    try:
        write_start(completion.study, out.resolve().parent)
        write_atomically(out, text.encode())
    except OSError as error:
        raise RunError(f"{out}: the finished study cannot be written: {error.strerror}; give another --out") from None
    for warning in kit_warnings(completion.study) if completion.settings else ():
        print(warning, file=sys.stderr)
    lines = [f"  {s.section}{'.' * bool(s.section)}{s.key}: {_plain(s.value)}  # {s.why}" for s in completion.settings]
    return "\n".join([f"{out}: finished, digest {completion.study.sha256}", *lines])


def _section(document: Mapping[str, Any], setting: Setting) -> Mapping[str, Any]:
    section = document.get(setting.section) if setting.section else document
    return {key: value for key, value in section.items() if value is not None} if isinstance(section, Mapping) else {}


def _block(settings: tuple[Setting, ...]) -> list[str]:
    entries = [(f"  {s.key}: {_plain(s.value)}", s.why) for s in settings if s.section == "training"]
    width = min(60, max(len(entry) for entry, _ in entries))
    return [f"{entry:{width}}  # {why}" for entry, why in entries]


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_plain(each)}" for key, each in value.items()) + "}"
    return str(value)


def _moved(text: str, old: Path, new: Path) -> str:
    """Return the text with the simulation's relative paths as another folder has them."""
    begin = re.search(r"^simulation:", text, re.MULTILINE)
    if old == new or begin is None:
        return text

    def moved(match: re.Match[str]) -> str:
        return match[1] + (match[2] if Path(match[2]).is_absolute() else os.path.relpath(old / match[2], new))

    return text[: begin.start()] + _PATH.sub(moved, text[begin.start() :])


def _files(study: Study) -> list[tuple[str, str]]:
    return [(site, os.path.realpath(source.path or "")) for site, source in study.simulation]
