"""Draw results as SVG: horizontal bars, one panel per scenario, several panels in a file. Pure: values in, text out.

Every plot stands on a card of its own, light or dark as the reader's system is, so that it can be read on any page.
"""

from typing import Any
from xml.sax.saxutils import escape

from benchmarks.servers import base
from benchmarks.verdicts import COLUMNS, FLOOR, MORE_IS_BETTER, disturbed, is_disturbed, mains, serves

# Group of scenarios -> title of its plot; a group is a file. In the order of the report.
GROUPS = {
    "mixed": "No head sent twice",
    "http2": "HTTP/2",
    "asgi": "ASGI, the client repeats itself",
    "wsgi": "WSGI, the client repeats itself",
    "frameworks": "Frameworks, the client repeats itself",
    "more": "WebSocket, TLS, access log",
    "tornado": "Tornado's interface",
    "memory": "Memory",
    "start": "Start",
}

WIDTH = 880
PANEL = 410  # width of a panel; two stand side by side
MARGIN = 20
NAMES = 120  # width of the servers' names
VALUES = 108  # width of the figures behind a full bar
BAR = 15
STEP = 22  # from bar to bar
TITLE = 44  # height of a panel's title
TIMES = "\N{MULTIPLICATION SIGN}"
CUT = 5.0  # a bar longer than this many of bridge's is cut, with a gap that shows it

STYLE = """
.card { fill: #ffffff; stroke: #d1d9e0 }
text { font: 13px -apple-system, "Segoe UI", "Noto Sans", "DejaVu Sans", Helvetica, Arial, sans-serif; fill: #1f2328 }
.big { font-size: 16px; font-weight: 600 }
.title { font-weight: 600 }
.soft { fill: #59636e; font-size: 12px }
.own { font-weight: 600 }
.times { font-weight: 400 }
.bar { fill: #a9b4c0 }
.bar.own { fill: #0969da }
.bar.floor { fill: none; stroke: #818b98; stroke-dasharray: 3 2 }
.gap { stroke: #ffffff; stroke-width: 3 }
@media (prefers-color-scheme: dark) {
.card { fill: #0d1117; stroke: #3d444d }
text { fill: #f0f6fc }
.soft { fill: #9198a1 }
.bar { fill: #59636e }
.bar.own { fill: #4493f8 }
.bar.floor { stroke: #9198a1 }
.gap { stroke: #0d1117 }
}
""".strip()


def text(x: float, y: float, content: str, kind: str = "", anchor: str = "") -> str:
    attributes = f' class="{kind}"' if kind else ""
    attributes += f' text-anchor="{anchor}"' if anchor else ""
    return f'<text x="{x:g}" y="{y:g}"{attributes}>{escape(content)}</text>'


def kind_of(name: str) -> str:
    """Return the class of a server's bar: bridge's own, the floor's, or any other's."""
    server = base(name)
    return "own" if server.startswith("bridge") else "floor" if server == FLOOR else ""


def unit(scenario: dict[str, Any]) -> str:
    """Return what the bars count and which way is good."""
    key, title, _ = COLUMNS[scenario["kind"]][0]
    return f"{title}, {'more' if key in MORE_IS_BETTER else 'less'} is better"


def ordered(scenario: dict[str, Any]) -> list[tuple[str, float]]:
    """Return servers and figures, the floor first, then from the best; those that answer nobody else come last."""
    key = COLUMNS[scenario["kind"]][0][0]
    figures = {name: summary.median for name, summary in mains(scenario).items()}
    sign = -1 if key in MORE_IS_BETTER else 1
    stuck = {name for name in figures if not serves(scenario["rounds"][name])}
    return sorted(figures.items(), key=lambda item: (item[0] != FLOOR, item[0] in stuck, sign * item[1]))


def height(scenario: dict[str, Any]) -> int:
    return TITLE + STEP * len(scenario["rounds"]) + 14


def panel(scenario: dict[str, Any], x: int, y: int) -> list[str]:
    """Return one scenario's bars, its corner at *x*, *y*; the figure and its ratio to bridge's stand at each bar."""
    form = COLUMNS[scenario["kind"]][0][2]
    rows = ordered(scenario)
    own = dict(rows).get("bridge")
    limit = own * CUT if own else float("inf")
    longest = min(max((value for _, value in rows), default=0.0), limit) or 1.0
    scale = (PANEL - NAMES - VALUES) / longest
    lines = [text(x, y + 14, scenario["name"], "title"), text(x, y + 31, scenario["title"], "soft")]
    top = y + TITLE
    for name, value in rows:
        kind = kind_of(name)
        base = top + BAR - 3
        mark = " ¹" if disturbed(scenario["rounds"][name], scenario["kind"]) else ""
        lines.append(text(x + NAMES - 8, base, label(name) + mark, kind if kind == "own" else "", "end"))
        length = max(1.0, min(value, limit) * scale)
        bar = f"bar {kind}".strip()
        lines.append(f'<rect x="{x + NAMES:g}" y="{top:g}" width="{length:.1f}" height="{BAR}" rx="2" class="{bar}"/>')
        if value > limit:
            middle = x + NAMES + length * 0.9
            lines.append(f'<path d="M{middle:.1f} {top - 2}l-5 {BAR + 4}" class="gap"/>')
        shown = text(x + NAMES + length + 6, base, form.format(value), "own" if kind == "own" else "")
        if own and name != "bridge":
            words = ratio_text(value / own) if serves(scenario["rounds"][name]) else "a new client gets no answer"
            times = f'<tspan dx="7" class="soft times">{words}</tspan>'
            shown = shown.replace("</text>", times + "</text>")
        lines.append(shown)
        top += STEP
    for name in scenario["rounds"]:
        if name not in dict(rows):
            lines.append(text(x + NAMES - 8, top + BAR - 3, label(name), "", "end"))
            lines.append(text(x + NAMES, top + BAR - 3, "failed", "soft"))
            top += STEP
    return lines


def ratio_text(times: float) -> str:
    return f"{times:.2f}{TIMES}" if times < 10 else f"{times:.0f}{TIMES}"


def label(name: str) -> str:
    """Return a server's name as the plot shows it; options ("bridge+--no-access-log") without their dashes."""
    server, *options = name.split("+")
    return " ".join([server, *(option.lstrip("-").replace("access-log", "log") for option in options)])


def svg(title: str, scenarios: list[dict[str, Any]]) -> str:
    """Return a file with a panel for each of *scenarios*, two abreast."""
    lines: list[str] = []
    units = list(dict.fromkeys(unit(scenario) for scenario in scenarios))
    y = MARGIN + 34 + 18 * len(units)
    for index in range(0, len(scenarios), 2):
        pair = scenarios[index : index + 2]
        for column, scenario in enumerate(pair):
            lines += panel(scenario, MARGIN + column * (PANEL + MARGIN), y)
        y += max(height(scenario) for scenario in pair)
    marked = any(is_disturbed(scenario) for scenario in scenarios)
    foot = f"{TIMES} is the multiple of bridge's figure." + (" ¹ disturbed, see the table." if marked else "")
    lines.append(text(MARGIN, y + 8, foot, "soft"))
    total = y + 8 + MARGIN
    heading = [text(MARGIN, MARGIN + 14, title, "big")]
    for number, words in enumerate(units):
        names = [s["name"] for s in scenarios if unit(s) == words]
        before = "" if len(units) == 1 else ", ".join(names) + ": "
        heading.append(text(MARGIN, MARGIN + 34 + 18 * number, before + words, "soft"))
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {total}" width="{WIDTH}" height="{total}" '
            f'role="img" aria-label="{escape(title, {chr(34): "&quot;"})}">',
            f"<style>\n{STYLE}\n</style>",
            f'<rect x="0.5" y="0.5" width="{WIDTH - 1}" height="{total - 1}" rx="8" class="card"/>',
            *heading,
            *lines,
            "</svg>",
            "",
        ]
    )
