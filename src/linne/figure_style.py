"""The look of every figure: colours for light and dark pages, type sizes, headings, and the way to PNG.

Blue is right, vermilion is wrong (both from Okabe and Ito's palette, told apart by colour-blind readers), and no
meaning hangs on colour alone. Sizes are in inches; 100 pixels of a page are an inch. matplotlib's object interface,
no global state: everything is set on the figure itself.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from linne.report import shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 160
MADE_BY = "linne"
FALLBACK_FONTS = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Noto Sans CJK KR",
    "WenQuanYi Micro Hei",
    "PingFang SC",
    "Hiragino Sans",
    "Microsoft YaHei",
    "Yu Gothic",
    "Malgun Gothic",
    "Noto Sans Devanagari",
    "Noto Sans Thai",
)
"""For class names in letters that matplotlib's own DejaVu Sans lacks; those that are installed are used."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Theme:
    """The colours of a figure."""

    paper: str
    panel: str
    ink: str
    muted: str
    grid: str
    right: str
    wrong: str


LIGHT = Theme(
    paper="#ffffff",
    panel="#f3f5f7",
    ink="#1d2329",
    muted="#69727d",
    grid="#e3e7eb",
    right="#0072b2",
    wrong="#d55e00",
)
DARK = Theme(
    paper="#171b21",
    panel="#20262e",
    ink="#e4e9ee",
    muted="#929ca8",
    grid="#2d343d",
    right="#56b4e9",
    wrong="#f08a3c",
)


def png(figure: Figure) -> bytes:
    """Return `figure` as the bytes of a PNG file without date or version, so that equal figures are equal files.

    The file says that it is linne's, by which linne may replace it.
    """
    _find_fonts(figure)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # Letters that no installed font has are drawn as boxes; the page and the tables still spell the name.
        warnings.filterwarnings("ignore", message=r"Glyph \d+ .* missing from font", category=UserWarning)
        figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": MADE_BY}, facecolor=figure.get_facecolor())
    return buffer.getvalue()


def new_figure(width: float, height: float, theme: Theme) -> Figure:
    """Return an empty figure that belongs to no window."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), facecolor=theme.paper)


def inches(
    figure: Figure, left: float, bottom: float, width: float, height: float
) -> tuple[float, float, float, float]:
    """Return a rectangle given in inches as the shares of `figure` that `add_axes` takes."""
    across, up = figure.get_figwidth(), figure.get_figheight()
    return left / across, bottom / up, width / across, height / up


def new_axes(figure: Figure, left: float, bottom: float, width: float, height: float, theme: Theme) -> Axes:
    """Return axes at a place in inches, with a line below, a light grid across, and nothing else."""
    axes = figure.add_axes(inches(figure, left, bottom, width, height), facecolor=theme.paper)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(theme.muted)
    axes.grid(axis="y", color=theme.grid, linewidth=0.9)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelcolor=theme.muted, labelsize=9, pad=5)
    return axes


def write_title(axes: Axes, text: str, theme: Theme) -> None:
    """Write a bold line over `axes`, flush left."""
    axes.set_title(text, loc="left", color=theme.ink, fontsize=10.5, fontweight="bold", pad=12)


def write_headings(figure: Figure, lines: Sequence[str], theme: Theme) -> None:
    """Write a bold line and smaller ones below it in the upper left corner."""
    height = figure.get_figheight()
    left = 0.2 / figure.get_figwidth()
    for k, line in enumerate(lines):
        figure.text(
            left,
            1 - (0.18 + 0.25 * k) / height,
            line,
            color=theme.muted if k else theme.ink,
            fontsize=9.5 if k else 11.5,
            fontweight="normal" if k else "bold",
            va="top",
        )


def locator(num_ticks: int, *, integer: bool = False) -> Any:
    """Return what places about `num_ticks` ticks at round numbers."""
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(num_ticks, integer=integer, min_n_ticks=1, steps=[1, 2, 5, 10])


def rgb(colour: str) -> NDArray[np.float64]:
    """Return "#rrggbb" as three numbers of 0-1."""
    return np.array([int(colour[k : k + 2], 16) for k in (1, 3, 5)]) / 255


def luminance(rgb_3: NDArray[np.float64]) -> float:
    """Return the relative luminance, 0-1, of a colour (WCAG 2.2's formula for sRGB)."""
    linear = np.where(rgb_3 <= 0.04045, rgb_3 / 12.92, ((rgb_3 + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))


def drawn(name: str, length: int) -> str:
    """Return `name` short and on one line, with `$` kept from starting a formula."""
    return shorten(" ".join(name.split()), length).replace("$", r"\$")


def _find_fonts(figure: Figure) -> None:
    """Let texts beyond European letters fall back on installed fonts that may have them."""
    from matplotlib.font_manager import fontManager
    from matplotlib.text import Text

    texts = [text for text in figure.findobj(Text) if any(map(_is_foreign, text.get_text()))]
    if texts:
        installed = {font.name for font in fontManager.ttflist}
        families = ["DejaVu Sans", *(name for name in FALLBACK_FONTS if name in installed)]
        for text in texts:
            text.set_fontfamily(families)


def _is_foreign(letter: str) -> bool:
    return letter > "\u058f" and not "\u2000" <= letter <= "\u2bff"  # punctuation and symbols DejaVu has
