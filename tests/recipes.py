"""The recipes of .github/CONTRIBUTING.md: how to add a kind of each thing, with code of tests/kits, which tests run.

python -m tests.recipes    # writes them; make docs does too, and a test compares
"""

import ast
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / ".github" / "CONTRIBUTING.md"
BEGIN, END = "<!-- recipes -->\n", "<!-- end -->\n"


@dataclass(frozen=True)
class Recipe:
    """One kind of thing: its toy, what to write, and which definitions of the toy to show."""

    title: str
    kit: str
    base: str
    registry: str
    text: str
    shown: tuple[str, ...]


RECIPES = (
    Recipe(
        "A task type",
        "graded",
        "strategies/tasks/base.py",
        "strategies/tasks/registry.py",
        "What an outcome is: how its columns become numbers, the loss of a row and its residual (the gradient by the "
        "model's outputs, with a bound that the privacy engine uses), the prediction, and the metrics, of which the "
        "first is the headline. Hold the residual against autograd, and each metric against its definition.",
        ("Graded.encode", "Graded.loss", "Graded.residual", "Graded.predict", "install"),
    ),
    Recipe(
        "A model",
        "convolution",
        "strategies/models/base.py",
        "strategies/models/registry.py",
        "The shapes of its parameters, without PyTorch, and the PyTorch module with those very parameters. One that is "
        "no linear stack is made private by book-keeping: hold its clipped sums against Opacus on the same gradients.",
        ("ConvolutionKeys", "Convolution", "CONVOLUTION_KEYS", "install"),
    ),
    Recipe(
        "A connector",
        "json_lines",
        "client/connectors/base.py",
        "client/connectors/registry.py",
        "The keys of its source, how it looks whether the source is there without reading a row, and how it reads the "
        "wanted columns. What cells mean is judged in one place, `table_of`, the same for all connectors.",
        ("JsonLines", "JsonLinesConnector", "install"),
    ),
    Recipe(
        "A reader of images or series",
        "grey_map",
        "strategies/data/readers/base.py",
        "strategies/data/readers/registry.py",
        "How one record of one format becomes an array, as it is: size, window and what cannot be read are judged in "
        "one place, the same for all readers. It may fail in any way, and gets one record's files alone.",
        ("GreyMapReader", "install"),
    ),
    Recipe(
        "A strategy",
        "shared_direction",
        "strategies/federated/base.py",
        "strategies/federated/registry.py",
        "The coordinator's half combines the hospitals' models, and says which arrays are sent beside the model and "
        "kept in a checkpoint; the hospital's half changes local steps by public arrays alone, after clip and noise.",
        ("directions", "SharedDirection.configure_train", "SharedDirection.sent", "leaning", "install"),
    ),
    Recipe(
        "A release",
        "column_count",
        "strategies/releases/base.py",
        "strategies/releases/registry.py",
        "One thing that may leave, both halves: its arrays, what the hospital makes of patients (after it was "
        "booked), what the coordinator believes, and one sentence for the people who approve it. Its forms join the "
        "list of what may cross the wire. What follows from it is a record in metrics.json.",
        (
            *("Keys", "Counted", "ColumnCount.arrays", "ColumnCount.make", "ColumnCount.judge", "ColumnCount.combine"),
            *("ColumnCount.sentence", "install"),
        ),
    ),
    Recipe(
        "How a release's result is shown",
        "count_renderer",
        "server/report/released/base.py",
        "server/report/released/registry.py",
        "A section of the report and a paragraph of the model card for the record of a release, in a file of its own: "
        "a hospital's worker may not read the code that draws. Without it the record's fields are a plain table.",
        ("CountRenderer", "install"),
    ),
    Recipe(
        "A section of the report",
        "purpose_section",
        "server/report/parts.py",
        "server/report/sections/registry.py",
        "A question, the sentence that answers it, and what to show below; where it stands, and which runs have it. "
        "Sentences that must not be overlooked, paragraphs of the model card and charts as files come with it.",
        ("reading", "body", "PURPOSE", "install"),
    ),
    Recipe(
        "A privacy mode",
        "central",
        "strategies/privacy/modes/base.py",
        "strategies/privacy/modes/registry.py",
        "Who adds noise and where, the plan by public numbers, and the guarantee in words, with what it does not "
        "protect against. Hold its epsilon against dp-accounting.",
        ("Central.plan", "Central.protect", "Central.combine", "Central.guarantee", "install"),
    ),
)


def source(kit: str, name: str) -> str:
    """Return one definition of a kit as it stands there, with its decorators, moved to the left margin."""
    text = (ROOT / "tests" / "kits" / f"{kit}.py").read_text("utf-8")
    body: list[ast.stmt] = ast.parse(text).body
    node: ast.stmt | None = None
    for part in name.split("."):
        node = next(each for each in body if _name(each) == part)
        body = getattr(node, "body", [])
    assert node is not None
    first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
    lines = text.splitlines()[first - 1 : node.end_lineno]
    return "\n".join(line[node.col_offset :] for line in lines)


def _name(node: ast.stmt) -> str:
    if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
        return node.targets[0].id
    return getattr(node, "name", "")


def recipes() -> str:
    """Return the recipes as Markdown."""
    parts = []
    for recipe in RECIPES:
        code = "\n\n\n".join(source(recipe.kit, name) for name in recipe.shown)
        kit = f"tests/kits/{recipe.kit}.py"
        parts.append(
            f"### {recipe.title}\n\n"
            f"{wrapped(recipe.text)}\n\n"
            f"Interface: [`{recipe.base}`](../{recipe.base}). Registry: [`{recipe.registry}`](../{recipe.registry}). "
            f"The whole toy: [`{kit}`](../{kit}).\n\n```python\n{code}\n```\n"
        )
    return "\n" + "\n".join(parts) + "\n"


def wrapped(text: str, width: int = 118) -> str:
    """Return a paragraph in lines of at most `width` characters."""
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + 1 + len(word) > width:
            lines.append(word)
        else:
            lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines)


def with_recipes(page: str) -> str:
    """Return the page with the recipes as the toys are now."""
    begin, end = page.index(BEGIN) + len(BEGIN), page.index(END)
    return page[:begin] + recipes() + page[end:]


if __name__ == "__main__":
    PAGE.write_text(with_recipes(PAGE.read_text("utf-8")), "utf-8")
