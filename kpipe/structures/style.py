"""What is drawn of a face, and in which colors."""

from __future__ import annotations

from dataclasses import dataclass, field

Color = tuple[int, int, int]
"""RGB, each 0 to 255."""

LAYERS = ("boxes", "lines", "points", "numbers", "index")
"""What can be drawn; `kpipe.rendering.draw` has a function for each."""

PALETTE: dict[str, Color] = {
    "jaw": (79, 195, 247),
    "right_brow": (255, 213, 79),
    "left_brow": (255, 160, 0),
    "nose": (129, 220, 120),
    "right_eye": (255, 112, 90),
    "left_eye": (206, 110, 255),
    "lips": (255, 90, 160),
    "box": (255, 255, 255),
}


@dataclass(frozen=True)
class Style:
    """The layers to draw, from the bottom to the top, and their colors.

    Attributes:
        draw: any of `LAYERS`.
        palette: RGB of each face part, and of `box`.

    Raises:
        ValueError: no layer has that name.
    """

    draw: tuple[str, ...] = ("boxes", "lines", "points")
    palette: dict[str, Color] = field(default_factory=PALETTE.copy)

    def __post_init__(self) -> None:
        unknown = [name for name in self.draw if name not in LAYERS]
        if unknown:
            raise ValueError(f"cannot draw {unknown[0]!r}; choose from {', '.join(LAYERS)}")
