r"""YAML read strictly, as YAML 1.2 has it, and written so that any reader takes it back unchanged.

`no` and `yes` are words, `1e-5` is a number; a key given twice, an alias or an anchor is an error. Lists of words keep
what stands in the file.

>>> import tempfile
>>> with tempfile.TemporaryDirectory() as folder:
...     written = Path(folder, "study.yaml").write_text("answer: no\nvalues: [1.50, 007]")
...     read_yaml(Path(folder, "study.yaml"))
{'answer': 'no', 'values': ['1.50', '007']}
"""

import re
from pathlib import Path
from typing import Any, cast

import yaml

from configs.errors import ConfigError
from configs.marks import Marks
from configs.shown import short
from configs.yaml_errors import EACH_ONCE, in_words

MAX_FILE_BYTES = 1_000_000
AFTER_SCHEME = re.compile(r"://.*", re.DOTALL)  # of an address, which may hold a password


def read_yaml(path: Path) -> Any:
    """Return the document in a YAML file, plain values only.

    Raises:
        ConfigError: unreadable, too large, not YAML, a duplicate key, an alias.
    """
    return read_marked(path).document


def read_marked(path: Path) -> Marks:
    """Return the same with the place of each key.

    Raises:
        ConfigError: as `read_yaml`.
    """
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ConfigError(str(path), [f"expected at most {MAX_FILE_BYTES} bytes; this is not a study file"])
        return parse_marked(path.read_text("utf-8"), str(path))
    except OSError as error:
        raise ConfigError(str(path), [f"cannot be read: {error.strerror}; check the path"]) from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigError(
            str(path), [f"expected UTF-8 text, found other bytes on line {line}; save it as UTF-8"]
        ) from None


def parse_yaml(text: str, source: str) -> Any:
    """Return the document of a YAML text, plain values only.

    Raises:
        ConfigError: not YAML, a duplicate key, an alias.
    """
    return parse_marked(text, source).document


def parse_marked(text: str, source: str) -> Marks:
    """Return the same with the place of each key.

    Raises:
        ConfigError: as `parse_yaml`.
    """
    try:
        loader = _StrictLoader(text)  # a SafeLoader: builds plain values only
        node = loader.get_single_node()
        return Marks.of(None if node is None else loader.construct_document(node), node)
    except RecursionError:
        raise ConfigError(source, ["nested too deeply to be a study"]) from None
    except (yaml.YAMLError, ValueError) as error:
        line, column, problem = in_words(error, text)
        where = f"line {line}, column {column}: " if line else ""
        raise ConfigError(source, [f"{where}{problem}"]) from None


def read_scalar(text: str) -> Any:
    """Return the plain value of a text that stands for one, the text itself where it does not."""
    try:
        return yaml.load(text, Loader=_StrictLoader)  # noqa: S506 - a SafeLoader: builds plain values only
    except yaml.YAMLError:
        return text


_LISTS_OF_WORDS = ("classes", "values", "missing")
_MAPPING_OF_WORDS = "words"
_PLAIN = {f"tag:yaml.org,2002:{kind}" for kind in ("bool", "int", "float")}


def dump_yaml(document: Any) -> str:
    """Return a document as YAML that `read_yaml`, and any other reader, takes back unchanged."""
    return yaml.dump(document, Dumper=_StrictDumper, sort_keys=False, allow_unicode=True, width=110)


class _StrictLoader(yaml.SafeLoader):
    """YAML 1.2 words and numbers, where lists of words keep what is written; no aliases; no key twice."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = cast(yaml.Event, self.peek_event())  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            problem = "anchors and aliases are not accepted; write it out"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)  # type: ignore[arg-type]
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:  # noqa: FBT001, FBT002 - PyYAML's interface
        keys: set[str] = set()
        for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
            if key.value in _LISTS_OF_WORDS and isinstance(value, yaml.SequenceNode):
                _as_written(value)
            if key.value == _MAPPING_OF_WORDS and isinstance(value, yaml.MappingNode):
                _pairs_as_written(value)
            text = str(key.value)
            if text in keys:
                problem = f"{EACH_ONCE}, found {short(text)!r} again; keep one, or indent it below its section"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            keys.add(text)
        return super().construct_mapping(node, deep)

    def construct_object(self, node: Any, deep: bool = False) -> Any:  # noqa: FBT001, FBT002 - PyYAML's interface
        try:
            return super().construct_object(node, deep)
        except (AttributeError, LookupError, TypeError, ValueError, OverflowError):  # of `!!bool often`, 5,000 digits
            text = short(AFTER_SCHEME.sub("://...", repr(node.value)), 40)
            problem = f"{text} cannot be read as {short(node.tag.rpartition(':')[2])}; correct it"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark) from None


def _as_written(words: yaml.SequenceNode) -> None:
    """Let numbers and truth values in a list of words be the text that stands in the file: 1.50 is a cell, so is True.

    A CSV file's cells are compared as text: a value that was read as a number and written again may match none.
    """
    for item in words.value:
        if isinstance(item, yaml.ScalarNode) and item.tag.endswith(":bool") and item.value in ("true", "false"):
            problem = (
                f"{item.value} without quotes: YAML libraries write it for `yes` and `no`, and cells are compared with "
                'it as text; write what the cells say, in quotes: ["no", "yes"], or ["false", "true"]'
            )
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=item.start_mark)
        if isinstance(item, yaml.ScalarNode) and (item.tag in _PLAIN or _is_word_null(item)):
            item.tag = "tag:yaml.org,2002:str"


def _is_word_null(item: yaml.ScalarNode) -> bool:
    """Return whether a data base's NULL stands there as a word."""
    return item.tag.endswith(":null") and item.value.lower() == "null"


def _pairs_as_written(columns: yaml.MappingNode) -> None:
    """Let the words of each column, here and in the study, be the text that stands in the file, but for null."""
    for _, pairs in columns.value:
        for local, word in pairs.value if isinstance(pairs, yaml.MappingNode) else ():
            if isinstance(local, yaml.ScalarNode) and (local.tag in _PLAIN or _is_word_null(local)):
                local.tag = "tag:yaml.org,2002:str"
            if isinstance(word, yaml.ScalarNode) and word.tag in _PLAIN:
                word.tag = "tag:yaml.org,2002:str"


_StrictLoader.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in resolvers if tag in ("tag:yaml.org,2002:null",)]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"(?:true|True|TRUE|false|False|FALSE)$"), None
)
_StrictLoader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"[-+]?(0|[1-9][0-9]*)$"), None)
_StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$|[-+]?\.(inf|Inf|INF)$|\.(nan|NaN|NAN)$"),
    None,
)


class _StrictDumper(yaml.SafeDumper):
    """Quotes every word that YAML 1.1 or `_StrictLoader` would read as something else."""


_STRICT, _LENIENT = _StrictLoader.yaml_implicit_resolvers[None], yaml.SafeDumper.yaml_implicit_resolvers
_StrictDumper.yaml_implicit_resolvers = {
    first: [*_LENIENT.get(first, []), *_STRICT] for first in {*_LENIENT, *"-+.0123456789tTfF"}
}
