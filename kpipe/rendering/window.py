"""A window for pictures and key presses, and text written over a picture."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from kpipe.errors import WindowError
from kpipe.utils.opencv import cv2

TITLE = "kpipe live"

PROBE = "import cv2; cv2.namedWindow('probe'); cv2.waitKey(1); cv2.destroyAllWindows()"
"""Opens and closes a window in a process of its own."""

LINE = 22
"""Height of a line of text (pixels)."""


class Window:
    """A window of OpenCV; it takes the size of the first picture.

    Raises:
        WindowError: there is no display, or this OpenCV cannot open windows.
    """

    def __init__(self) -> None:
        linux = sys.platform.startswith("linux")
        if linux and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            raise WindowError("there is no display here")
        # If the display does not answer, OpenCV ends its whole process: a small one tries first.
        probe = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, check=False)
        if probe.returncode != 0:
            if b"not implemented" in probe.stderr:
                raise WindowError("this build of OpenCV has no windows")
            raise WindowError("the display does not answer")
        # Qt warns of missing fonts that it does not need.
        os.environ.setdefault("QT_LOGGING_RULES", "*.warning=false")
        cv2.namedWindow(TITLE, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL)
        self._sized = False

    def show(self, image: NDArray[np.uint8]) -> None:
        """Shows a picture (h, w, 3) uint8, RGB."""
        if not self._sized:
            cv2.resizeWindow(TITLE, image.shape[1], image.shape[0])
            self._sized = True
        cv2.imshow(TITLE, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))

    def key(self) -> str:
        """The key pressed since the last call, in lower case; `esc` for Escape, empty for none."""
        code = cv2.waitKey(1)
        if code < 0:
            return ""
        return "esc" if code & 0xFF == 27 else chr(code & 0xFF).lower()

    def closed(self) -> bool:
        """Whether the user has closed the window."""
        return cv2.getWindowProperty(TITLE, cv2.WND_PROP_VISIBLE) < 1

    def close(self) -> None:
        cv2.destroyAllWindows()


def write_over(image: NDArray[np.uint8], lines: Sequence[str], *, bottom: bool = False) -> None:
    """Writes lines on a dark strip along the top or the bottom of a picture (h, w, 3), in place."""
    height = LINE * len(lines) + 8
    top = max(image.shape[0] - height, 0) if bottom else 0
    strip = image[top : top + height]
    strip[:] = strip // 3
    for number, line in enumerate(lines):
        place = (8, top + LINE * (number + 1) - 4)
        font = cv2.FONT_HERSHEY_SIMPLEX
        cv2.putText(image, line, place, font, 0.5, (255, 255, 255), 1, cv2.LINE_AA)
