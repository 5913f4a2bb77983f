"""Small charts as inline SVG: lines, distributions, and dots with intervals. Colours come from the page's style sheet,
so that a chart is readable in the light and in the dark; every text is escaped."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup, escape

WIDE, NARROW = (720, 250), (340, 190)
"""Width and height in the units of an SVG's view box: across the page, and several beside each other."""
LEFT, RIGHT, TOP, BOTTOM = 48, 14, 10, 34
"""Room for the labels of the axes."""
STEPS = (1.0, 2.0, 5.0, 10.0)
"""A tick stands at a multiple of one of these times a power of ten."""
BINS = 28
ROW_HEIGHT = 13
"""Of one dot with its interval."""
COLORS = 6
"""Classes c0 to c5 in the style sheet; a seventh series begins again."""

Point = tuple[float, float]


@dataclass(frozen=True)
class Series:
    """A line. `faint` draws it behind the others, without a place in the legend; `dots` marks its points."""

    name: str
    points: Sequence[Point]
    faint: bool = False
    dots: bool = False


@dataclass(frozen=True)
class Dot:
    """A value with its interval, of the series with this number."""

    series: int
    value: float
    low: float
    high: float
    tip: str


@dataclass(frozen=True)
class Axis:
    """A linear scale over `low` to `high`, drawn on the units `start` to `end`."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        share = (value - self.low) / ((self.high - self.low) or 1.0)
        return round(self.start + share * (self.end - self.start), 1)


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """At most `most` + 1 round numbers from low to high; one number where both are equal."""
    if not high > low:
        return [low]
    raw = (high - low) / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in STEPS if power * factor >= raw * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [number * step + 0.0 for number in range(first, math.floor(high / step + 1e-9) + 1)]


def label(value: float) -> str:
    """A tick's text: `0.05`, `12`, `1,500`, `1e-07`."""
    if value and not 1e-4 <= abs(value) < 1e7:
        return f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e")
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.6g}".replace("-", "−")


def lines(
    title: str,
    series: Sequence[Series],
    x_label: str,
    y_label: str = "",
    size: tuple[int, int] = NARROW,
    x_names: Mapping[float, str] | None = None,
) -> Markup:
    """Lines over a common x; points that are not finite are left out. Nothing to draw is an empty text. `x_names` are
    the ticks of x with their texts, where they are not to be round numbers."""
    drawn = [Series(s.name, _finite(s.points), s.faint, s.dots) for s in series]
    drawn = [s for s in drawn if s.points]
    if not drawn:
        return Markup("")
    xs = [x for s in drawn for x, _ in s.points]
    ys = [y for s in drawn for _, y in s.points]
    x, y = Axis(min(xs), max(xs), LEFT, size[0] - RIGHT), _upward(min(ys), max(ys), size)
    named = list(dict.fromkeys(s.name for s in drawn))
    parts = [_frame(x, y, size, x_label, y_label, x_names)]
    parts += [_line(s, named.index(s.name) % COLORS, x, y) for s in sorted(drawn, key=lambda s: not s.faint)]
    return _figure(title, [name for name in named if len(named) > 1], Markup("").join(parts), size)


def _finite(points: Sequence[Point]) -> list[Point]:
    return [point for point in points if all(map(math.isfinite, point))]


def _upward(low: float, high: float, size: tuple[int, int]) -> Axis:
    """The vertical axis, with a little air; equal values lie in its middle."""
    air = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
    return Axis(low - air, high + air, size[1] - BOTTOM, TOP)


def _line(series: Series, color: int, x: Axis, y: Axis) -> Markup:
    path = " ".join(f"{x(a)},{y(b)}" for a, b in series.points)
    kind = "line faint" if series.faint else "line"
    drawn = Markup('<polyline class="{} c{}" points="{}"/>').format(kind, color, path)
    if series.dots or len(series.points) == 1:
        tips = [Markup("{}: {} at {}").format(series.name, label(round(b, 4)), label(a)) for a, b in series.points]
        drawn += Markup("").join(
            Markup('<circle class="dot c{}" cx="{}" cy="{}" r="3"><title>{}</title></circle>').format(
                color, x(a), y(b), tip
            )
            for (a, b), tip in zip(series.points, tips, strict=True)
        )
    return drawn


def _frame(
    x: Axis, y: Axis, size: tuple[int, int], x_label: str, y_label: str, x_names: Mapping[float, str] | None = None
) -> Markup:
    """Lines of the ticks, their numbers, and the names of the axes."""
    width, height = size
    parts = []
    for value in ticks(y.low, y.high, 4):
        parts.append(_grid(LEFT, y(value), width - RIGHT, y(value)))
        parts.append(_text(LEFT - 6, y(value) + 3.5, label(value), "end"))
    for value, name in (x_names or {v: label(v) for v in ticks(x.low, x.high, 6 if width > 400 else 4)}).items():
        parts.append(_text(x(value), height - BOTTOM + 14, name, "middle"))
    parts.append(_text((LEFT + width - RIGHT) / 2, height - 5, x_label, "middle"))
    if y_label:
        middle = (TOP + height - BOTTOM) / 2
        parts.append(
            Markup('<text class="axis" text-anchor="middle" transform="translate(11 {}) rotate(-90)">{}</text>').format(
                middle, y_label
            )
        )
    return Markup("").join(parts)


def _grid(x1: float, y1: float, x2: float, y2: float, kind: str = "grid") -> Markup:
    return Markup('<line class="{}" x1="{}" y1="{}" x2="{}" y2="{}"/>').format(kind, x1, y1, x2, y2)


def _text(x: float, y: float, text: str, anchor: str) -> Markup:
    return Markup('<text class="axis" x="{}" y="{}" text-anchor="{}">{}</text>').format(x, y, anchor, text)


def _figure(title: str, legend: Sequence[str], drawing: Markup, size: tuple[int, int]) -> Markup:
    keys = [Markup('<span class="key c{}">{}</span>').format(i % COLORS, name) for i, name in enumerate(legend)]
    return Markup(
        '<figure class="{}"><figcaption>{} {}</figcaption>'
        '<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg></figure>'
    ).format("narrow" if size[0] < 400 else "wide", title, Markup(" ").join(keys), *size, title, drawing)


def distributions(
    title: str, groups: Sequence[tuple[str, Sequence[float]]], x_label: str, size: tuple[int, int] = NARROW
) -> Markup:
    """Histograms over common bins, each as shares of its own group, one over the other. Values at the far ends (the
    outer half percent) are counted in the outermost bin."""
    groups = [(name, [v for v in values if math.isfinite(v)]) for name, values in groups]
    groups = [(name, values) for name, values in groups if values]
    if not groups:
        return Markup("")
    every = sorted(value for _, values in groups for value in values)
    low, high = every[int(len(every) * 0.005)], every[min(len(every) - 1, int(len(every) * 0.995))]
    if low == high:
        low, high = low - 0.5, high + 0.5
    shares = [histogram(values, low, high) for _, values in groups]
    x = Axis(low, high, LEFT, size[0] - RIGHT)
    y = Axis(0.0, max(map(max, shares)) * 108, size[1] - BOTTOM, TOP)
    parts = [_frame(x, y, size, x_label, "% of them")]
    width = (high - low) / BINS
    for color, own in enumerate(shares):
        tops = [(x(low + i * width), x(low + (i + 1) * width), y(100 * share)) for i, share in enumerate(own)]
        steps = " ".join(f"{left},{top} {right},{top}" for left, right, top in tops)
        outline = f"{x(low)},{y(0)} {steps} {x(high)},{y(0)}"
        parts.append(Markup('<polygon class="area c{}" points="{}"/>').format(color % COLORS, outline))
    return _figure(title, [f"{name} ({len(values):,})" for name, values in groups], Markup("").join(parts), size)


def histogram(values: Sequence[float], low: float, high: float) -> list[float]:
    """The share of the values in each of BINS equal bins from low to high; what lies beyond is in the outermost."""
    counts = [0] * BINS
    for value in values:
        place = int((value - low) / (high - low) * BINS)
        counts[max(0, min(BINS - 1, place))] += 1
    return [count / len(values) for count in counts]


def bars(title: str, items: Sequence[tuple[str, float, bool]], x_label: str, size: tuple[int, int] = NARROW) -> Markup:
    """Upright bars with their labels; the last of each item says whether it is one of the bad ones."""
    most = max((value for _, value, _ in items), default=0.0)
    if not most:
        return Markup("")
    x, y = Axis(0, len(items), LEFT, size[0] - RIGHT), Axis(0, most * 1.08, size[1] - BOTTOM, TOP)
    parts = [_grid(LEFT, y(v), size[0] - RIGHT, y(v)) + _text(LEFT - 6, y(v) + 3.5, label(v), "end")
             for v in ticks(0, most, 4)]  # fmt: skip
    for i, (name, value, bad) in enumerate(items):
        place = x(i + 0.08), y(value), round(x(i + 0.92) - x(i + 0.08), 1), round(y(0) - y(value), 1)
        parts.append(
            Markup('<rect class="bar {}" x="{}" y="{}" width="{}" height="{}"><title>{}: {}</title></rect>').format(
                "bad" if bad else "good", *place, name, label(value)
            )
        )
        parts.append(_text(x(i + 0.5), size[1] - BOTTOM + 13, name, "middle"))
    parts.append(_text((LEFT + size[0] - RIGHT) / 2, size[1] - 5, x_label, "middle"))
    return _figure(title, [], Markup("").join(parts), size)


def dots(
    title: str, rows: Sequence[tuple[str, Sequence[Dot]]], legend: Sequence[str], x_label: str, zero: bool = False
) -> Markup:
    """A line of dots with intervals for each row, under each other by series. `zero` marks where nothing changes."""
    every = [dot for _, own in rows for dot in own]
    if not every:
        return Markup("")
    low, high = min(dot.low for dot in every), max(dot.high for dot in every)
    if zero:
        low, high = min(low, 0.0), max(high, 0.0)
    names = 12 + 7 * max(len(name) for name, _ in rows)
    air = (high - low) * 0.03 or 0.5
    left = min(names, 220)
    heights = [ROW_HEIGHT * max(1, len(own)) + 12 for _, own in rows]
    size = (WIDE[0], sum(heights) + TOP + BOTTOM)
    x = Axis(low - air, high + air, left, size[0] - RIGHT)
    bottom = size[1] - BOTTOM
    parts = [_grid(x(v), TOP, x(v), bottom) + _text(x(v), bottom + 14, label(v), "middle")
             for v in ticks(x.low, x.high, 8)]  # fmt: skip
    parts += [_grid(x(0), TOP, x(0), bottom, "zero")] if zero else []
    parts.append(_text((left + size[0] - RIGHT) / 2, size[1] - 5, x_label, "middle"))
    for (name, own), top in zip(rows, _tops(heights), strict=True):
        height = ROW_HEIGHT * max(1, len(own)) + 12
        parts.append(Markup('<text class="name" x="{}" y="{}">{}</text>').format(0, top + height / 2 + 4, name))
        for i, dot in enumerate(own):
            parts.append(_dot(dot, x, top + 6 + ROW_HEIGHT * (i + 0.5)))
    parts += [_grid(0, top, size[0] - RIGHT, top) for top in _tops(heights)[1:]]
    return _figure(title, legend, Markup("").join(parts), size)


def _tops(heights: Sequence[float]) -> list[float]:
    return [TOP + sum(heights[:number]) for number in range(len(heights))]


def _dot(dot: Dot, x: Axis, y: float) -> Markup:
    color = dot.series % COLORS
    return Markup(
        '<g class="c{}"><line class="whisker" x1="{}" y1="{}" x2="{}" y2="{}"/>'
        '<circle class="dot" cx="{}" cy="{}" r="4"/><title>{}</title></g>'
    ).format(color, x(dot.low), y, x(dot.high), y, x(dot.value), y, dot.tip)


def smooth(points: Sequence[Point], most: int = 240, weight: float = 0.1) -> tuple[list[Point], list[Point]]:
    """The points, thinned to `most` means of equal stretches, and their running mean (each new one has `weight`,
    corrected for the beginning)."""
    points = _finite(points)
    cuts = [round(i * len(points) / most) for i in range(most + 1)] if len(points) > most else [*range(len(points) + 1)]
    thin = [_mean_point(points[a:b]) for a, b in pairwise(cuts)]
    running, total, calm = 0.0, 0.0, []
    for x, y in thin:
        running, total = (1 - weight) * running + weight * y, (1 - weight) * total + weight
        calm.append((x, running / total))
    return thin, calm


def _mean_point(points: Sequence[Point]) -> Point:
    return points[-1][0], math.fsum(y for _, y in points) / len(points)


def share_bar(share: float) -> Markup:
    """A bar in a table's cell, of this share of its width."""
    return Markup('<span class="share"><span style="width:{}%"></span></span>').format(
        escape(f"{100 * max(0.0, min(1.0, share)):.1f}")
    )
