"""The headline figures as one SVG, readable on light and dark pages."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tests.benchmarks.contestants import CONTESTANTS
from tests.benchmarks.figures import Figure, Figures
from tests.benchmarks.report import Setting, number

WIDTH = 860
LABELS = 198  # where the panels begin, right of the contestants' names
PANEL = 314
GAP = 20
ROW = 18
TOP = 66
HEAD = 22  # of a panel, above its rows
FOOT = 40  # of a panel, below its rows
BESIDE = 98  # right of the axis, for the number of the longest bar
TIMES = "\N{MULTIPLICATION SIGN}"
SHOWN = [name for name in CONTESTANTS if name != "floor"]
UNEQUAL = (
    "Only Housekeeper claims and records each run; schedule runs tasks one after the other in its"
    " own thread, huey by way of a queue in memory."
)
STYLE = """
svg { color-scheme: light dark; font: 12px system-ui, -apple-system, "Segoe UI", sans-serif;
  --card: #fff; --edge: #e2e2dc; --text: #20242a; --soft: #5b636c; --grid: #ecece7;
  --own: #2c6e5a; --peer: #a8aeb5; --floor: #20242a; }
@media (prefers-color-scheme: dark) { svg { --card: #1b1e22; --edge: #33383e; --text: #e6e8ea;
  --soft: #a3abb3; --grid: #2a2e33; --own: #6fb59f; --peer: #6d757e; --floor: #e6e8ea; } }
.card { fill: var(--card); stroke: var(--edge); }
text { fill: var(--text); } .soft { fill: var(--soft); } .small { font-size: 11px; }
.title { font-size: 16px; font-weight: 600; } .head { font-weight: 600; }
.right { text-anchor: end; } .middle { text-anchor: middle; }
.own { fill: var(--own); } .peer { fill: var(--peer); } text.ours { font-weight: 600; }
.grid { stroke: var(--grid); } .floor { stroke: var(--floor); }
"""


@dataclass(frozen=True)
class Headline:
    """A figure that gets a panel."""

    title: str
    measure: str
    figure: str
    sized: bool  # it is one of so many tasks

    def of(self, figures: Figures, contestant: str, tasks: int) -> Figure | None:
        return figures.find(self.measure, self.figure, contestant, tasks if self.sized else 0)


HEADLINES = (
    Headline("CPU of a run, {tasks} due at once", "burst", "cpu", True),
    Headline("Lateness of a lone task, median", "lone", "p50", False),
    Headline("Memory of a task, of {tasks}", "registration", "memory", True),
    Headline("Registering and starting a task", "registration", "ready", True),
)


class Axis:
    """Ratios to the floor, on a logarithmic scale that all panels share."""

    def __init__(self, ratios: Iterable[float], left: float) -> None:
        logs = [0.0, 1.0, *(math.log10(each) for each in ratios if each > 0)]
        self.low, self.high = math.floor(min(logs)), math.ceil(max(logs))
        self.left = left
        self.unit = (PANEL - BESIDE) / (self.high - self.low)

    def x(self, ratio: float) -> float:
        return round(self.left + (math.log10(ratio) - self.low) * self.unit, 1)

    def decades(self) -> list[float]:
        return [10.0**power for power in range(self.low, self.high + 1)]


def drawn(figures: Figures, tasks: int, where: Setting) -> str:
    """Return the SVG; a panel says "not measured" of what this pass has left out."""
    rows = math.ceil(len(HEADLINES) / 2)
    panel_height = HEAD + ROW * len(SHOWN) + FOOT
    height = TOP + rows * panel_height + 44
    svg = ET.Element(
        "svg",
        {"xmlns": "http://www.w3.org/2000/svg", "role": "img", "aria-labelledby": "title desc"},
        viewBox=f"0 0 {WIDTH} {height}",
        width=str(WIDTH),
        height=str(height),
    )
    ET.SubElement(svg, "title", id="title").text = "Housekeeper's speed beside its peers"
    ET.SubElement(svg, "desc", id="desc").text = _in_words(figures, tasks)
    ET.SubElement(svg, "style").text = STYLE
    _rect(svg, (0.5, 0.5, WIDTH - 1, height - 1), "card", round_by=8)
    _text(svg, (20, 29), "What Housekeeper costs, beside its peers and the floor", "title")
    _text(svg, (20, 48), "Times the floor, a scheduler that is only a heap, Condition.wait and"
          " ThreadPoolExecutor.submit; logarithmic; shorter is better.", "soft")  # fmt: skip
    for index, headline in enumerate(HEADLINES):
        row, column = divmod(index, 2)
        left, top = LABELS + column * (PANEL + GAP), TOP + row * panel_height
        _panel(svg, headline, (left, top), (figures, tasks))
    _text(svg, (20, height - 32), UNEQUAL, "soft small")
    _text(svg, (20, height - 14), _made_with(where), "soft small")
    ET.indent(svg)
    return ET.tostring(svg, encoding="unicode") + "\n"


def _in_words(figures: Figures, tasks: int) -> str:
    """Return all that is drawn as sentences, for who cannot see it."""
    sentences = []
    for headline in HEADLINES:
        told = []
        for name in CONTESTANTS:
            figure = headline.of(figures, name, tasks)
            told.append(f"{CONTESTANTS[name].label} {_value(figure)}")
        sentences.append(f"{headline.title.format(tasks=f'{tasks:,}')}: {'; '.join(told)}.")
    return " ".join(sentences)


def _value(figure: Figure | None) -> str:
    if figure is None:
        return "not comparable"
    if figure.value is None:
        return figure.problem or "not measured"
    unit = figure.unit.split("/")[0].replace("us", "µs")
    return f"{number(figure.value)} {unit}"


def _panel(
    svg: ET.Element, headline: Headline, corner: tuple[float, float], of: tuple[Figures, int]
) -> None:
    """Draw one figure of all contestants."""
    (left, top), (figures, tasks) = corner, of
    all_ratios = [
        figure.ratio_to_floor
        for each in HEADLINES
        for name in SHOWN
        if (figure := each.of(figures, name, tasks)) and figure.ratio_to_floor
    ]
    axis = Axis(all_ratios, left)
    bottom = top + HEAD + ROW * len(SHOWN)
    _text(svg, (left, top + 12), headline.title.format(tasks=f"{tasks:,}"), "head")
    _grid(svg, axis, (top + HEAD, bottom))
    floor = headline.of(figures, "floor", tasks)
    if floor is not None and floor.value is not None:
        _text(svg, (axis.x(1.0), bottom + 27), f"floor {_value(floor)}", "soft small middle")
    for number_of_row, name in enumerate(SHOWN):
        middle = top + HEAD + ROW * (number_of_row + 0.5)
        if left == LABELS:
            ours = " ours" if name.startswith("housekeeper") else ""
            _text(svg, (left - 14, middle + 4), CONTESTANTS[name].label, f"right{ours}")
        _bar(svg, axis, headline.of(figures, name, tasks), middle)


def _grid(svg: ET.Element, axis: Axis, span: tuple[float, float]) -> None:
    """Draw the decades, and the floor's line."""
    top, bottom = span
    for ratio in axis.decades():
        x, kind = axis.x(ratio), "floor" if ratio == 1.0 else "grid"
        ends = {"x1": str(x), "x2": str(x), "y1": str(top), "y2": str(bottom)}
        ET.SubElement(svg, "line", {"class": kind, **ends})
        label = f"{ratio:g}" if ratio < 1000 else f"{ratio / 1000:g}k"
        _text(svg, (x, bottom + 14), f"{label}{TIMES}", "soft small middle")


def _bar(svg: ET.Element, axis: Axis, figure: Figure | None, middle: float) -> None:
    """Draw a bar from the floor's line to a ratio, with its number at the end."""
    start = axis.x(1.0)
    if figure is None or not figure.ratio_to_floor:
        _text(svg, (start + 6, middle + 4), _value(figure), "soft small")
        return
    end = axis.x(figure.ratio_to_floor)
    ours = figure.contestant.startswith("housekeeper")
    corner = (min(start, end), middle - ROW / 2 + 3, max(1.0, abs(end - start)), ROW - 6)
    _rect(svg, corner, "own" if ours else "peer", round_by=2)
    told = f"{_value(figure)}, {number(figure.ratio_to_floor)}{TIMES}"
    _text(svg, (max(start, end) + 6, middle + 4), told, "small ours" if ours else "small")


def _rect(svg: ET.Element, box: Sequence[float], kind: str, round_by: float) -> None:
    x, y, width, height = (f"{each:g}" for each in box)
    size = {"x": x, "y": y, "width": width, "height": height, "rx": f"{round_by:g}"}
    ET.SubElement(svg, "rect", {"class": kind, **size})


def _text(svg: ET.Element, at: tuple[float, float], text: str, kind: str) -> None:
    place = {"x": f"{at[0]:g}", "y": f"{at[1]:g}", "class": kind}
    ET.SubElement(svg, "text", place).text = text


def _made_with(where: Setting) -> str:
    named = ("housekeeper", "apscheduler", "schedule", "huey")
    versions = ", ".join(f"{name} {where.versions[name]}" for name in named)
    cores = f"{where.machine['cpus']} cores"
    return f"{where.date}, Python {where.machine['python']}, {cores}; {versions}"
