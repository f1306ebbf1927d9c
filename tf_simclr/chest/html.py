"""Parts of a page that needs nothing but itself: text is escaped, pictures are within it, no script, no link out."""

import base64
import html
import io
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

NOTICE = "Research use, not a diagnosis."
MADE_UP_NUMBERS = "These radiographs are made up: the numbers show that the program runs, and nothing else."
_STYLE = files("tf_simclr.chest").joinpath("report.css").read_text()


class _Markup(str):
    """What is markup already; everything else is text, which is escaped where it enters a page."""

    __slots__ = ()


def text(value: object) -> _Markup:
    """A value as text that is no markup; a number and its % stay on one line.

    Example:
        >>> text("a < b")
        'a &lt; b'
    """
    if isinstance(value, _Markup):
        return value
    return _Markup(html.escape(str(value)).replace(" %", "\N{NO-BREAK SPACE}%"))


def tag(name: str, *inner: object, **attributes: str) -> _Markup:
    """An element around texts and other elements; `kind` is its class.

    Example:
        >>> tag("p", "1 < 2", tag("b", "!"), kind="soft")
        '<p class="soft">1 &lt; 2<b>!</b></p>'
    """
    named = {"class" if key == "kind" else key.replace("_", "-"): value for key, value in attributes.items()}
    written = "".join(f' {key}="{html.escape(value)}"' for key, value in named.items())
    return _Markup(f"<{name}{written}>{''.join(map(text, inner))}</{name}>")


def listed(items: Sequence[object], *, ordered: bool = False, kind: str | None = None) -> _Markup:
    """A list."""
    attributes = {} if kind is None else {"kind": kind}
    return tag("ol" if ordered else "ul", *(tag("li", item) for item in items), **attributes)


def table(heads: Sequence[str], rows: Sequence[Sequence[object]], *, caption: str = "", first: bool = False) -> _Markup:
    """A table; on a narrow screen each row is a card, its cells named by the heads.

    Args:
        heads: texts.
        rows: texts and elements.
        caption: text below.
        first: whether the first row stands out.
    """
    # `data-name` is what the style shows in front of a cell where there is no room for a head.
    head = tag("thead", tag("tr", *(tag("th", name, scope="col") for name in heads)))
    body = []
    for number, row in enumerate(rows):
        cells = [tag("td", cell, data_name=name) for name, cell in zip(heads, row, strict=True)]
        body.append(tag("tr", *cells, **({"kind": "first"} if first and number == 0 else {})))
    below = tag("p", caption, kind="soft") if caption else ""
    return _Markup(tag("table", head, tag("tbody", *body)) + below)


def measured(value: Mapping[str, Any], *, percent: bool = False, digits: int = 2) -> object:
    """A number above its interval, as a table's cell; or why there is none."""
    if "why" in value or "value" not in value:
        return value.get("why", "none")
    # Per cent without decimals: a hundredth of a share is more than any interval here can tell.
    scale, digits, unit = (100, 0, " %") if percent else (1, digits, "")
    number = tag("b", f"{scale * value['value']:.{digits}f}{unit}")
    if "low" not in value:
        return number
    ends = f"{scale * value['low']:.{digits}f} to {scale * value['high']:.{digits}f}{unit}"
    return tag("div", number, tag("span", ends))


def picture(content: bytes, *, kind: str, alt: str, caption: str = "") -> _Markup:
    """A picture within the page.

    Args:
        content: of the file.
        kind: `png` or `svg+xml`.
        alt: what it shows, for who cannot see it.
        caption: text below.
    """
    source = f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
    image = _Markup(f'<img src="{source}" alt="{html.escape(alt)}">')
    return tag("figure", image, tag("figcaption", caption) if caption else "")


def drawing(figure: Any, *, alt: str, caption: str = "") -> _Markup:
    """A figure of matplotlib as lines, sharp at any size and in print."""
    from tf_simclr.plots import as_written

    content = io.BytesIO()
    as_written(figure)
    figure.savefig(content, format="svg", metadata={"Date": None})
    return picture(content.getvalue(), kind="svg+xml", alt=alt, caption=caption)


def page(title: str, about: str, *body: object, words: Mapping[str, str], made: Mapping[str, object]) -> str:
    """A whole document; the notice stays in view.

    Args:
        title: of the page.
        about: what it is of, a sentence below the title.
        body: its parts.
        words: used in it → what they mean.
        made: setting → value: how the numbers came about.
    """
    meanings = (part for word, meaning in words.items() for part in (tag("dt", word), tag("dd", meaning)))
    main = tag(
        "main",
        tag("h1", title),
        tag("p", about, kind="soft"),
        *body,
        tag("h2", "Words"),
        tag("dl", *meanings),
        tag("h2", "How it was made"),
        table(["Setting", "Value"], list(made.items())),
        tag("p", tag("b", NOTICE)),
    )
    head = "".join(
        [
            '<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
            "style-src 'unsafe-inline'\">",
            tag("title", title),
            tag("style", _Markup(_STYLE)),
        ]
    )
    notice = tag("div", NOTICE, kind="notice", role="note")
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body>{notice}{main}</body></html>\n'
