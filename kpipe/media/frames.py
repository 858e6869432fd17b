"""What videos and cameras give."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Frame(NamedTuple):
    """One picture of a video or a camera.

    Attributes:
        image: (h, w, 3) uint8, RGB, upright.
        time: seconds since the video, or the camera, began.
        number: of the frame there, from 0.
    """

    image: NDArray[np.uint8]
    time: float
    number: int
