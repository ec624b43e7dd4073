"""From cells to verdicts: medians, spreads, ratios of the same round, targets met or missed.

A cell is one measured run. Only sound cells count; a void or failed one is published but gives no
verdict. Ratios are taken within a round, so that what changes from minute to minute cancels.
"""

import dataclasses
import statistics

MET, MISSED, VOID, FAILED, NONE = "met", "missed", "void", "failed", "not measured"


@dataclasses.dataclass
class Cell:
    """One run of one load against one broker."""

    row: str
    # `OrbitMQ`, `Java RocketMQ`, `Kafka`, `host`.
    peer: str
    config: str
    # What distinguishes it from the row's other cells: `50 %`, `1,000 topics`.
    case: str
    round: int
    # Whom it took turns with, as the configuration of the other side.
    beside: str = ""
    values: dict = dataclasses.field(default_factory=dict)
    # The generator's result, a file beside the report.
    file: str | None = None
    void: list = dataclasses.field(default_factory=list)
    failed: str | None = None
    # What the broker did not manage, as refusals; the cell counts all the same.
    note: str | None = None

    @property
    def is_sound(self):
        return not self.void and not self.failed


@dataclasses.dataclass(frozen=True)
class Spread:
    """Median and range of a figure over the rounds."""

    median: float
    low: float
    high: float
    count: int

    @staticmethod
    def of(values):
        values = [value for value in values if value is not None]
        if not values:
            return None
        return Spread(statistics.median(values), min(values), max(values), len(values))


@dataclasses.dataclass
class Line:
    """One judged line of a table."""

    what: str
    target: str
    verdict: str
    # The judged figure with its spread, as text, and the absolute figures behind it.
    measured: str = "–"
    ours: str = "–"
    theirs: str = "–"
    # Ours is worse than the other side's, target or not.
    is_loss: bool = False

    def shown(self):
        """The same line without a verdict."""
        return dataclasses.replace(self, verdict="shown")


class Cells:
    """The cells of a comparison, to be asked for."""

    def __init__(self, cells):
        self.all = list(cells)

    def pick(self, **wanted):
        """Sound cells whose fields are as wanted, by round."""
        fits = [
            cell
            for cell in self.all
            if cell.is_sound and all(getattr(cell, key) == value for key, value in wanted.items())
        ]
        return Cells(sorted(fits, key=lambda cell: cell.round))

    def why_missing(self, row, case=None):
        """What became of a row's runs, if there were any."""
        mine = [c for c in self.all if c.row == row and case in (None, c.case)]
        if any(cell.void for cell in mine):
            return VOID
        return FAILED if any(cell.failed for cell in mine) else NONE

    def values(self, key):
        return [cell.values[key] for cell in self.all if key in cell.values]

    def spread(self, key):
        return Spread.of(self.values(key))

    def by_round(self, key):
        """The median of a figure in each round."""
        rounds = {}
        for cell in self.all:
            if key in cell.values:
                rounds.setdefault(cell.round, []).append(cell.values[key])
        return {number: statistics.median(values) for number, values in rounds.items()}

    def configs(self):
        return list(dict.fromkeys(cell.config for cell in self.all))

    def best_case(self, key="rate"):
        """The cells of the case with the highest median."""
        by_case = {case: self.pick(case=case) for case in self.cases()}
        ranked = [(cells.spread(key), case) for case, cells in by_case.items()]
        ranked = [(spread.median, case) for spread, case in ranked if spread]
        return by_case[max(ranked)[1]] if ranked else Cells([])

    def cases(self):
        return list(dict.fromkeys(cell.case for cell in self.all))


def ratios(ours, theirs, key):
    """Ours ÷ theirs, round by round; of the medians if the rounds do not match."""
    left, right = ours.by_round(key), theirs.by_round(key)
    both = [left[n] / right[n] for n in sorted(left.keys() & right.keys()) if right[n] > 0]
    if both:
        return Spread.of(both)
    left, right = ours.spread(key), theirs.spread(key)
    if left and right and right.median > 0:
        return Spread.of([left.median / right.median])
    return None


def at_least(spread, bound):
    return _verdict(spread, lambda value: value >= bound)


def at_most(spread, bound):
    return _verdict(spread, lambda value: value <= bound)


def _verdict(spread, holds):
    if spread is None:
        return NONE
    return MET if holds(spread.median) else MISSED


def missing(cells, row, what, target, case=None):
    """The line of something without sound cells: void, failed, or never measured."""
    return Line(what, target, cells.why_missing(row, case))


def number(value):
    """Three to four figures, as a reader wants them; a count is given whole."""
    if value is None:
        return "–"
    if isinstance(value, int):
        return f"{value:,}"
    size = abs(value)
    if size >= 10_000:
        # More digits than these are noise.
        return f"{round(value, 3 - len(str(int(size)))):,.0f}"
    if size >= 100:
        return f"{value:,.0f}"
    if size >= 10:
        return f"{value:.1f}"
    if size >= 1 or size == 0:
        return f"{value:.2f}"
    return f"{value:.3g}"


def with_range(spread, unit="", scale=1):
    """`12.3 (11.9–13.0) ×`."""
    if spread is None:
        return "–"
    text = number(spread.median * scale)
    if spread.count > 1:
        text += f" ({number(spread.low * scale)}–{number(spread.high * scale)})"
    return f"{text} {unit}".rstrip()


def compare(what, target, ours, theirs, key, *, unit, least=None, most=None, scale=1):
    """A line that judges ours ÷ theirs of one figure."""
    spread = ratios(ours, theirs, key)
    verdict = at_least(spread, least) if least is not None else at_most(spread, most)
    worse = spread is not None and (
        spread.median < 1 if least is not None else spread.median > 1
    )
    return Line(
        what,
        target,
        verdict,
        with_range(spread, "×"),
        with_range(ours.spread(key), unit, scale),
        with_range(theirs.spread(key), unit, scale),
        worse,
    )
