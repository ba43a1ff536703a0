"""Parts of SVG pictures that are readable on light and dark pages, in whatever fonts the reader has."""

import math
from html import escape

# Each name with its colors on light and on dark pages.
FILLS = {
    "page": ("#ffffff", "#0d1117"),
    "on-bar": ("#ffffff", "#0d1117"),
    "panel": ("#f6f8fa", "#161b22"),
    "note": ("#59636e", "#9198a1"),
    "bar": ("#0969da", "#4493f8"),
    "dot": ("#0969da", "#4493f8"),
    "other": ("#8c959f", "#7d8590"),
    "pale": ("#b6d4fb", "#1f4a80"),
    "good": ("#1a7f37", "#3fb950"),
    "bad": ("#cf222e", "#f85149"),
    "warn": ("#9a6700", "#d29922"),
}
STROKES = {
    "grid": ("#d1d9e0", "#30363d"),
    "axis": ("#59636e", "#9198a1"),
    "made": ("#0969da", "#4493f8"),
    "outside": ("#9a6700", "#d29922"),
    "line": ("#0969da", "#4493f8"),
    "failure": ("#cf222e", "#f85149"),
}
TEXT = ("#1f2328", "#e6edf3")
FONTS = """
  text { font: 13px system-ui, sans-serif }
  .code { font: 12px ui-monospace, monospace }
  .title { font-weight: bold; font-size: 15px } .strong { font-weight: bold } .small { font-size: 11px }
  .log { font: 11px ui-monospace, monospace }
  .end { text-anchor: end } .middle { text-anchor: middle }
  .line, .failure { stroke-width: 2; fill: none } .dashed { stroke-dasharray: 4 3 }
  .made, .outside { fill: none; stroke-width: 1.5 }
"""


def text(x, y, content, kind=""):
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}">{escape(content)}</text>'


def line(x1, y1, x2, y2, kind):
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"/>'


def rect(x, y, width, height, kind, corner=0):
    corner = f' rx="{corner}"' if corner else ""
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"{corner} class="{kind}"/>'


def dot(x, y, kind="dot", radius=4):
    return f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{radius}"/>'


def cross(x, y):
    return f'<path d="M{x - 4:.1f} {y - 5:.1f}l8 10m0 -10l-8 10" class="failure"/>'


def picture(title: str, description: str, width: int, height: float, parts: list[str]) -> str:
    """The title is shown, and screen readers also read the description."""
    size = f'width="{width}" height="{height:.0f}"'
    labels = 'role="img" aria-labelledby="title desc"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} viewBox="0 0 {width} {height:.0f}" {labels}>'
    named = [f'<title id="title">{escape(title)}</title>', f'<desc id="desc">{escape(description)}</desc>']
    # A page may be dark although the reader's system is light, so a picture has its own background.
    page = f'<rect {size} class="page"/>'
    shown = [f"<style>{_style()}</style>", page, text(20, 26, title, "title")]
    return "\n".join([head, *named, *shown, *parts, "</svg>\n"])


def round_step(most, least=4):
    """A round number that divides `most` into at least so many steps."""
    power = 10.0 ** math.floor(math.log10(most / least))
    return max(factor * power for factor in (1, 2, 5) if factor * power <= most / least)


def _style():
    return f"{FONTS}{_colors(0, '  ')}  @media (prefers-color-scheme: dark) {{\n{_colors(1, '    ')}  }}\n"


def _colors(scheme, indent):
    rules = [f"text {{ fill: {TEXT[scheme]} }}"]
    rules += [f".{name} {{ fill: {colors[scheme]} }}" for name, colors in FILLS.items()]
    rules += [f".{name} {{ stroke: {colors[scheme]} }}" for name, colors in STROKES.items()]
    return "".join(f"{indent}{rule}\n" for rule in rules)
