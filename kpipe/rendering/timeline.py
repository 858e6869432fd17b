"""Head pose, eyes and mouth of each face of a video, plotted over time.

Needs matplotlib, the extra `kpipe[video]`.
"""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from kpipe.structures.faces import Face, Faces

GAP, SKIPPED = 0.25, 2.5
"""A line is broken where its face is missing for more than this (seconds, and frame intervals)."""


class Moment(NamedTuple):
    """The plotted values of one face in one frame: time (seconds), angles (degrees), openness."""

    time: float
    yaw: float
    pitch: float
    roll: float
    eyes: float
    mouth: float
    blink: bool


class Timeline:
    """Collects the plotted values frame by frame; pictures and points are not kept."""

    def __init__(self) -> None:
        self._tracks: dict[int, list[Moment]] = defaultdict(list)
        self._times: list[float] = []

    def add(self, faces: Faces) -> None:
        """Adds the faces of a frame. Faces without track, pose or openness are left out."""
        self._times.append(faces.time or 0.0)
        for face in faces:
            moment = _moment(face, self._times[-1])
            if face.track is not None and moment is not None:
                self._tracks[face.track].append(moment)

    def plot(self, title: str, format_: str = "png") -> bytes:
        """The plot as the content of a file.

        Args:
            title: above the plot.
            format_: any that matplotlib writes, such as `png`, `svg` or `pdf`.
        """
        figure = Figure(figsize=(11, 9), layout="constrained")
        rows = figure.subplots(len(_ROWS), 1, sharex=True)
        gap = max(GAP, SKIPPED * float(np.median(np.diff(self._times) if self._times[1:] else 0)))
        for row, (name, label) in zip(rows, _ROWS):
            for track, moments in sorted(self._tracks.items()):
                color = f"C{(track - 1) % 10}"
                times, values = _line(moments, name, gap)
                row.plot(times, values, color=color, linewidth=1, label=f"face {track}")
                if name == "eyes":
                    shut = [(m.time, m.eyes) for m in moments if m.blink]
                    row.plot(*(zip(*shut) if shut else ((), ())), "v", color=color, markersize=4)
            row.set_ylabel(label)
            row.grid(alpha=0.3)
        rows[0].set_title(title, parse_math=False)
        if 0 < len(self._tracks) <= 12:
            rows[0].legend(loc="upper right", fontsize="small", ncols=4)
        rows[-1].set_xlabel("seconds")
        buffer = io.BytesIO()
        with matplotlib.rc_context({"svg.fonttype": "none"}):
            figure.savefig(buffer, format=format_, dpi=110)
        return buffer.getvalue()


_ROWS = (
    ("yaw", "yaw, °"),
    ("pitch", "pitch, °"),
    ("roll", "roll, °"),
    ("eyes", "eyes open (▾ blink)"),
    ("mouth", "mouth open"),
)


def _moment(face: Face, time: float) -> Moment | None:
    if face.pose is None or face.openness is None:
        return None
    opened = face.openness
    eyes = (opened.right_eye + opened.left_eye) / 2
    return Moment(time, *face.pose, eyes, opened.mouth, bool(face.blink))


def _line(moments: Iterable[Moment], name: str, gap: float) -> tuple[list[float], list[float]]:
    """Times and values of a line, with NaN where the face is missing for over `gap` seconds."""
    times: list[float] = []
    values: list[float] = []
    for moment in moments:
        if times and moment.time - times[-1] > gap:
            times.append(moment.time)
            values.append(float("nan"))
        times.append(moment.time)
        values.append(getattr(moment, name))
    return times, values
