"""A video to an annotated video and data."""

from __future__ import annotations

import dataclasses
import math
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from kpipe.apps.outputs import OutputGuard
from kpipe.apps.sinks import Run, Sink, Sinks
from kpipe.media.frames import Frame
from kpipe.media.video_reader import VideoReader
from kpipe.tracking.tracker import Tracker
from kpipe.utils.files import display_name


@dataclass
class ProcessedVideo:
    """What became of a video.

    Attributes:
        frames: that were taken.
        tracks: numbers of all faces.
        seconds: that it took.
        complete: whether the video was done to its end, or as far as it can be read.
        problems: errors of one line: of the video, or of files that could not be written.
    """

    frames: int = 0
    tracks: set[int] = field(default_factory=set)
    seconds: float = 0.0
    complete: bool = True
    problems: list[str] = field(default_factory=list)


def process_video(
    source: str | os.PathLike[str],
    tracker: Tracker | None = None,
    sinks: Sequence[Sink] = (),
    *,
    start: float = 0.0,
    stop: float = math.inf,
    every: int = 1,
    force: bool = False,
    progress: Callable[[VideoReader], Iterable[Frame]] = iter,
    stopped: Callable[[], bool] = lambda: False,
) -> ProcessedVideo:
    """Follows the faces of a video and gives them to sinks, frame by frame.

    What is damaged in the video, or a file that cannot be written, is reported in the result and
    costs nothing else. Needs PyAV, the extra `kpipe[video]`.

    >>> from kpipe.apps.sinks import JsonLines, Video
    >>> process_video("film.mp4", sinks=[JsonLines("faces.jsonl"), Video("out.mp4")])

    Args:
        source: a video file, or a URL.
        tracker: follows the faces, a new one for each video; without it that of `TrackerOptions`.
        sinks: where the faces go, see `kpipe.apps.sinks`.
        start, stop: seconds; frames before the one and from the other on are left out.
        every: of so many frames one is taken.
        force: whether files that exist may be replaced; the video itself never is.
        progress: wraps the frames that are worked through, as `tqdm` does.
        stopped: asked after each frame, and while one is waited for, whether to stop; the files are
            completed all the same.

    Raises:
        VideoError: the video cannot be read, or no video be written; nothing was begun.
        WriteError: a file exists already or cannot be opened; nothing was begun.
        ValueError: `every` is less than 1.
    """
    if every < 1:
        raise ValueError(f"every: at least 1, not {every}")
    if tracker is None:
        from kpipe.options import TrackerOptions

        tracker = TrackerOptions().build()
    name = os.fspath(source)
    result = ProcessedVideo()
    with VideoReader(name, start=start, stop=stop, stopped=stopped) as reader:
        guard = OutputGuard([name], force, "video")
        outputs = Sinks(sinks, Run(guard, [name], video=reader, every=every))
        began = time.perf_counter()
        try:
            for number, frame in enumerate(progress(reader)):
                if number % every == 0:
                    faces = tracker(frame.image, frame.time)
                    faces = dataclasses.replace(
                        faces, path=name, frame=frame.number, time=frame.time
                    )
                    result.frames += 1
                    result.tracks |= {face.track for face in faces if face.track is not None}
                    result.problems += outputs.append(faces, frame)
                if stopped() or outputs.idle:
                    result.complete = False
                    break
            else:
                # Waiting for a frame, too, ends when asked to stop.
                result.complete = not stopped()
            result.seconds = time.perf_counter() - began
            result.problems += outputs.close(result.complete)
        finally:
            outputs.abandon()
        if reader.problem is not None:
            result.problems.insert(0, f"{display_name(name)}: {reader.problem}")
    return result
