"""The picture of `sequence_modes.py`: each mode on test data. Not a program."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from support import source_lines
from support.common import GREEN, GREY, ORANGE, PURPLE, RED

if TYPE_CHECKING:
    from sequence_modes import Found, Tagged, Verdict

COLORS = dict(zip(source_lines.TAGS, ("black", RED, "black", ORANGE, GREEN, PURPLE, GREY), strict=True))


def draw(figure: Any, found: Found) -> None:
    """Each mode on test data."""
    above, below = figure.subfigures(2, 1)
    upper_left, upper_right = above.subfigures(1, 2, width_ratios=(1.7, 1))
    lower_left, lower_right = below.subfigures(1, 2)
    titles = {name: f"{name}: {score:.1%}" for name, score in found.scores.items()}
    for part, title in (
        (upper_left, f"{titles['one to one']} (class);  {titles['one to many']} (name)"),
        (upper_right, titles["encoder to decoder"]),
        (lower_left, f"{titles['many to one']} (the belief after each character)"),
        (lower_right, titles["in step"]),
    ):
        part.suptitle(title, fontsize=11, weight="bold")
    draw_digits(upper_left.subplots(2, 6).ravel(), found)
    draw_verdict(lower_left.subplots(), found.verdict)
    draw_dates(upper_right.subplots(), found)
    draw_tagged(lower_right.subplots(), found.tagged)


def draw_digits(panels: Any, found: Found) -> None:
    """Some pictures, at the end some that are misclassified."""
    wrong = (found.classes != found.digits.t) | (np.array(found.names) != found.correct_names)
    shown = [*np.flatnonzero(~wrong)[:8], *np.flatnonzero(wrong)[:4]]
    for axes in panels:
        axes.set_axis_off()
    for axes, i in zip(panels, shown, strict=False):
        axes.imshow(found.digits.x[i].reshape(8, 8), cmap="Greys")
        axes.set_title(
            f"{found.classes[i]}\n{found.names[i]}", color=RED if wrong[i] else "black", fontsize=11
        )


def draw_verdict(axes: Any, verdict: Verdict) -> None:
    """Some lines of code and some of text."""
    from matplotlib import colormaps

    shown = [i for kind in (False, True) for i in np.flatnonzero(verdict.is_text == kind)[30::60][:6]]
    for row, i in enumerate(shown):
        write(axes, row, verdict.lines[i].text, colormaps["coolwarm"](verdict.belief[i]))
    page(axes, len(shown) + 1)
    axes.text(0, len(shown) + 0.3, "code", color=colormaps["coolwarm"](0.0), weight="bold", va="center")
    axes.text(8, len(shown) + 0.3, "text", color=colormaps["coolwarm"](1.0), weight="bold", va="center")


def draw_dates(axes: Any, found: Found) -> None:
    """Some dates, the wrong ones first."""
    right = np.array(found.iso) == np.array(found.dates.computers)
    for row, i in enumerate(np.argsort(right, kind="stable")[:11]):
        text = f"{found.dates.people[i]:>18} → {found.iso[i]}"
        axes.text(
            0, row, text, family="monospace", fontsize=9.5, color="black" if right[i] else RED, va="center"
        )
    page(axes, 11)
    axes.set(xlim=(-1, 40))


def draw_tagged(axes: Any, tagged: Tagged) -> None:
    """Some lines in the colours of their tags; wrong ones are underlined."""
    longest = np.argsort(-tagged.mask.sum(1), kind="stable")[::60][:12]
    for row, i in enumerate(longest):
        tags, line = tagged.tags[i], tagged.lines[i]
        write(axes, row, line.text, [COLORS[source_lines.TAGS[tag]] for tag in tags], "bold")
        for at in np.flatnonzero((tags != tagged.target[i]) & tagged.mask[i]):
            axes.plot([at - 0.45, at + 0.45], [row + 0.42] * 2, color=RED, linewidth=1.5)
    page(axes, len(longest) + 1)
    place = 0
    for tag, color in list(COLORS.items())[1:]:
        axes.text(place, len(longest) + 0.3, tag, color=color, weight="bold", va="center")
        place += len(tag) + 3
    axes.text(place, len(longest) + 0.3, "underlined: wrong", color=RED, va="center")


def write(axes: Any, row: int, text: str, colors: Any, weight: str = "normal") -> None:
    """A line of text, each character in its colour."""
    style = {"family": "monospace", "fontsize": 9, "weight": weight, "ha": "center", "va": "center"}
    for at, (letter, color) in enumerate(zip(text, colors, strict=False)):
        axes.text(at, row, letter, color=color, **style)


def page(axes: Any, rows: int) -> None:
    """Sets up axes for lines of text, from the top down."""
    axes.set(xlim=(-1, 65), ylim=(rows, -1))
    axes.set_axis_off()
