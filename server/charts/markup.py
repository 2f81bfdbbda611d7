"""HTML and SVG elements with escaping.

Whatever is not `Html` is text and is escaped: the one place where that happens. An f-string of `Html` is a plain `str`
again: a mistake shows as escaped markup on the page, never as an injection.

>>> el("p", "a < b ", el("b", "& c"), class_="note")
'<p class="note">a &lt; b <b>&amp; c</b></p>'
>>> el("line", x1=1.0, x2=2.345)
'<line x1="1" x2="2.3"></line>'
"""

from collections.abc import Iterable
from html import escape

VOID = frozenset({"br", "hr", "meta"})


class Html(str):
    """Text that is markup already."""

    __slots__ = ()


def el(tag: str, *children: str | None, **attributes: str | float | bool | None) -> Html:
    """Return one element. `class_` is the attribute class, `stroke_width` stroke-width; None and False omit it."""
    opening = "".join([tag, *(_attribute(name, value) for name, value in attributes.items())])
    return Html(f"<{opening}>" if tag in VOID else f"<{opening}>{join(children)}</{tag}>")


def join(parts: Iterable[str | None]) -> Html:
    """Return the parts one after the other, escaped unless they are markup; a per cent sign stays with its number."""
    return Html("".join(part if isinstance(part, Html) else _text(part) for part in parts if part is not None))


def _text(part: str) -> str:
    return escape(part).replace(" %", "&nbsp;%")


def decimal(value: float) -> str:
    """Return a coordinate with one decimal at most.

    >>> decimal(12.0), decimal(0.25), decimal(-0.04)
    ('12', '0.2', '0')
    """
    text = f"{value:.1f}"
    text = text[:-2] if text.endswith(".0") else text
    return "0" if text == "-0" else text


def _attribute(name: str, value: str | float | None) -> str:
    if value is None or value is False:
        return ""
    name = name.rstrip("_").replace("_", "-")
    if value is True:
        return f" {name}"
    return f' {name}="{escape(value if isinstance(value, str) else decimal(value))}"'
