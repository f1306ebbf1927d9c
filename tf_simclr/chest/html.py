"""Parts of a page that needs nothing but itself: text is escaped, pictures are within it, no script, no link out."""

import base64
import html
import io
from collections.abc import Mapping, Sequence
from typing import Any

MADE_UP_NUMBERS = "These radiographs are made up: the numbers show that the program runs, and nothing else."
STYLE = """
:root { --ink: #1c2733; --soft: #5b6875; --line: #d5dbe1; --back: #f4f6f8; --accent: #0b5cad; --warn: #8a4b00; }
* { box-sizing: border-box; }
body { margin: 0; color: var(--ink); background: #fff; font: 1rem/1.55 system-ui, "Segoe UI", Roboto, "DejaVu Sans",
  sans-serif; -webkit-text-size-adjust: 100%; }
main { max-width: 62rem; margin: 0 auto; padding: 0 1.25rem 3rem; }
.notice { position: sticky; top: 0; z-index: 1; background: #fff4e0; color: var(--warn); border-bottom: 1px solid
  #f0d3a3; padding: .5rem 1.25rem; text-align: center; font-weight: 600; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 1.6rem 0 .3rem; }
h2 { font-size: 1.25rem; margin: 2.2rem 0 .6rem; padding-top: .6rem; border-top: 1px solid var(--line); }
p, ul, ol, dl { max-width: 46rem; }
.lead { font-size: 1.08rem; }
.soft, figcaption { color: var(--soft); font-size: .9rem; }
ul.short { background: var(--back); border-left: 4px solid var(--accent); padding: .8rem 1.2rem .8rem 2.1rem;
  max-width: none; border-radius: 0 .4rem .4rem 0; }
ul.short li + li { margin-top: .4rem; }
table { border-collapse: collapse; width: 100%; margin: .6rem 0 1rem; font-size: .92rem; }
th, td { padding: .45rem .6rem; text-align: right; vertical-align: top; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; }
thead th { border-bottom: 2px solid var(--ink); font-weight: 600; vertical-align: bottom; }
tbody tr.first { background: #eaf2fb; }
td b { font-weight: 600; font-variant-numeric: tabular-nums; }
td span { display: block; color: var(--soft); font-size: .82rem; white-space: nowrap; }
figure { margin: .8rem 0; }
figure img { max-width: 100%; height: auto; display: block; margin: 0 auto; }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 1.2rem; }
dt { font-weight: 600; margin-top: .6rem; }
dd { margin: 0; }
@media (max-width: 44rem) {
  h1 { font-size: 1.5rem; }
  .pair { grid-template-columns: 1fr; }
  table, tbody, tr, td { display: block; width: 100%; }
  thead { display: none; }
  tr { border: 1px solid var(--line); border-radius: .4rem; margin: 0 0 .8rem; padding: .2rem .7rem; }
  td { display: flex; justify-content: space-between; gap: 1rem; border-bottom: 1px solid var(--back); padding: .3rem 0;
    text-align: right; }
  td::before { content: attr(data-name); color: var(--soft); text-align: left; }
  td:first-child { font-weight: 600; text-align: left; }
  td:first-child::before { content: none; }
  td span { white-space: normal; }
}
@media print {
  .notice { position: static; }
  body { font-size: 10pt; }
  h2, figure, tr { break-inside: avoid; }
  h2 { break-after: avoid; }
  main { padding: 0; max-width: none; }
}
@page { margin: 1.6cm; }
"""


def text(value: object) -> str:
    """A value as text that is no markup; a number and its % stay on one line.

    Example:
        >>> text("a < b")
        'a &lt; b'
    """
    return html.escape(str(value)).replace(" %", "\N{NO-BREAK SPACE}%")


def tag(name: str, *inner: str, **attributes: str) -> str:
    """An element around markup; `kind` is its class.

    Example:
        >>> tag("p", text("1 < 2"), kind="soft")
        '<p class="soft">1 &lt; 2</p>'
    """
    named = {"class" if key == "kind" else key.replace("_", "-"): value for key, value in attributes.items()}
    written = "".join(f' {key}="{html.escape(value)}"' for key, value in named.items())
    return f"<{name}{written}>{''.join(inner)}</{name}>"


def listed(items: Sequence[str], *, ordered: bool = False, kind: str | None = None) -> str:
    """A list of texts."""
    attributes = {} if kind is None else {"kind": kind}
    return tag("ol" if ordered else "ul", *(tag("li", text(item)) for item in items), **attributes)


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, caption: str = "", first: bool = False) -> str:
    """A table of markup cells; on a narrow screen each row is a card, its cells named by the heads.

    Args:
        heads: texts.
        rows: markup.
        caption: text below.
        first: whether the first row stands out.
    """
    head = tag("thead", tag("tr", *(tag("th", text(name), scope="col") for name in heads)))
    body = []
    for number, row in enumerate(rows):
        cells = [tag("td", cell, data_name=name) for name, cell in zip(heads, row, strict=True)]
        body.append(tag("tr", *cells, **({"kind": "first"} if first and number == 0 else {})))
    below = tag("p", text(caption), kind="soft") if caption else ""
    return tag("table", head, tag("tbody", *body)) + below


def measured(value: Mapping[str, Any], *, percent: bool = False, digits: int = 2) -> str:
    """A number above its interval, as a table's cell; or why there is none."""
    if "why" in value or "value" not in value:
        return text(value.get("why", "none"))
    scale, digits, unit = (100, 0, " %") if percent else (1, digits, "")
    number = tag("b", f"{scale * value['value']:.{digits}f}{unit}")
    if "low" not in value:
        return number
    ends = f"{scale * value['low']:.{digits}f} to {scale * value['high']:.{digits}f}{unit}"
    return tag("div", number, tag("span", ends))


def picture(content: bytes, *, kind: str, alt: str, caption: str = "") -> str:
    """A picture within the page.

    Args:
        content: of the file.
        kind: `png` or `svg+xml`.
        alt: what it shows, for who cannot see it.
        caption: text below.
    """
    source = f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
    image = f'<img src="{source}" alt="{html.escape(alt)}">'
    return tag("figure", image, tag("figcaption", text(caption)) if caption else "")


def drawing(figure: Any, *, alt: str, caption: str = "") -> str:
    """A figure of matplotlib as lines, sharp at any size and in print."""
    content = io.BytesIO()
    figure.savefig(content, format="svg", metadata={"Date": None})
    return picture(content.getvalue(), kind="svg+xml", alt=alt, caption=caption)


def page(title: str, *body: str, notice: str) -> str:
    """A whole document; the notice stays in view."""
    head = "".join(
        [
            '<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
            "style-src 'unsafe-inline'\">",
            tag("title", text(title)),
            tag("style", STYLE),
        ]
    )
    shown = tag("div", text(notice), kind="notice", role="note") + tag("main", *body)
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body>{shown}</body></html>\n'
