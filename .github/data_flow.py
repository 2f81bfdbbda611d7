"""Draw data_flow.svg, the picture in the README: what moves between a hospital and the coordinator, and what stays.

python .github/data_flow.py    # writes the file beside this one; a test compares
"""

from html import escape
from pathlib import Path

WIDTH, HEIGHT = 960, 364
PEOPLE = ("DPO and IT approve this very study;", "site.yaml caps its epsilon, and says", "which figures may leave")
BOOKS = (
    "each release is booked before the first",
    "gradient; what left is kept; every",
    "record is chained and signed",
)
COORDINATOR = ("averages the updates,", "checkpoints every round;", "trusts no hospital")
STYLE = """
  text { font: 14px system-ui, sans-serif; fill: #1d2733 }
  .title { font-weight: 600 }
  .small { font-size: 12px; fill: #51606f }
  .wall { fill: #f2f6fa; stroke: #5d7c9c }
  .box { fill: #ffffff; stroke: #5d7c9c }
  .patients { fill: #fdf3e4; stroke: #b07a2a }
  .line { stroke: #2f6db3; stroke-width: 1.6; fill: none }
  .head { fill: #2f6db3 }
  .stop { stroke: #b03a2e; stroke-width: 2.4 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e4eaf0 }
    .small { fill: #a9b6c3 }
    .wall { fill: #17212b; stroke: #6f8fb0 }
    .box { fill: #0f161d; stroke: #6f8fb0 }
    .patients { fill: #33270f; stroke: #d09a4a }
    .line { stroke: #7fb2ea }
    .head { fill: #7fb2ea }
    .stop { stroke: #e57368 }
  }
"""


def box(x: int, y: int, width: int, height: int, title: str, lines: tuple[str, ...], kind: str = "box") -> str:
    """Return a rectangle with a title and lines of text; positions and sizes in pixels."""
    rows = [f'<text class="title" x="{x + 14}" y="{y + 26}">{escape(title)}</text>']
    rows += [
        f'<text class="small" x="{x + 14}" y="{y + 46 + 17 * number}">{escape(line)}</text>'
        for number, line in enumerate(lines)
    ]
    return f'<rect class="{kind}" x="{x}" y="{y}" width="{width}" height="{height}" rx="8"/>' + "".join(rows)


def arrow(x_from: int, x_to: int, y: int, text: str, text_y: int) -> str:
    """Return a horizontal arrow with its text beside it."""
    sign = 1 if x_to > x_from else -1
    head = f'<path class="head" d="M{x_to} {y} l{-9 * sign} -5 v10 z"/>'
    middle = (x_from + x_to) // 2
    label = f'<text class="small" x="{middle}" y="{text_y}" text-anchor="middle">{escape(text)}</text>'
    return f'<path class="line" d="M{x_from} {y} H{x_to - 6 * sign}"/>{head}{label}'


def picture() -> str:
    """Return the picture as SVG text."""
    parts = [
        box(12, 12, 596, 340, "A hospital (one of several)", (), "wall"),
        box(32, 60, 140, 120, "Patients", ("a CSV file or", "a database;", "they never leave"), "patients"),
        box(
            228, 60, 158, 120, "Worker", ("sees patients,", "has no network;", "clips, adds noise", "(Opacus's engine)")
        ),
        box(448, 60, 140, 120, "Node", ("sees no patient;", "checks, seals and", "keeps each", "message")),
        box(32, 226, 264, 106, "People decide", PEOPLE),
        box(324, 226, 264, 106, "Ledger, outbox, journal", BOOKS),
        box(724, 60, 224, 120, "Coordinator (Flower)", COORDINATOR),
        box(
            724,
            226,
            224,
            106,
            "Result",
            ("report, card, epsilon per patient;", "the model, which hospitals have", "in the end too"),
        ),
        arrow(172, 228, 110, "rows", 100),
        arrow(386, 448, 110, "update", 100),
        arrow(588, 724, 100, "noised update", 90),
        arrow(724, 588, 140, "study, model", 160),
        '<path class="line" d="M836 180 V220"/><path class="head" d="M836 226 l-5 -9 h10 z"/>',
        '<path class="line" d="M518 226 V186"/><path class="head" d="M518 180 l-5 9 h10 z"/>',
        '<path class="line" d="M164 226 V204 H306 V186"/><path class="head" d="M306 180 l-5 9 h10 z"/>',
        '<path class="stop" d="M666 190 V300"/>',
        '<text class="small" x="666" y="320" text-anchor="middle">nothing else</text>',
        '<text class="small" x="666" y="337" text-anchor="middle">passes</text>',
    ]
    label = (
        "Rows go from patients to a worker without network; a noised update goes through the node to the coordinator."
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(label)}">\n'
        f"<style>{STYLE}</style>\n" + "\n".join(parts) + "\n</svg>\n"
    )


if __name__ == "__main__":
    Path(__file__).with_name("data_flow.svg").write_text(picture(), "utf-8")
