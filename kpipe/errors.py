"""All errors that kpipe raises on purpose. Each message is one line written for the user.

    KpipeError
    ├── ImageError             a picture cannot be read or encoded
    ├── VideoError             a video cannot be read or written
    ├── CameraError            a camera cannot be used
    ├── WindowError            no window can be opened
    ├── WriteError             a file of results cannot be written
    ├── FormatError            a file of results cannot be read
    ├── BoxesError             a file of boxes cannot be used
    ├── DatasetError           labeled data cannot be used
    ├── KaggleError            a file is not as Kaggle's are
    ├── ModelError             the file of a network cannot be used
    ├── CascadeError           a cascade file cannot be used
    ├── TrainingError          a training run cannot be started, resumed or read
    └── BatchError             a job cannot begin or go on
        ├── SourceError        an input of the job cannot be used
        ├── ReadError          one photograph of the job cannot be read
        ├── EngineError        no worker can be started
        └── OutputError        results cannot be written, neither this one nor the next

Wrong arguments of a function are Python's own `ValueError` and `TypeError`.
"""

from __future__ import annotations


class KpipeError(Exception):
    """The base of all errors that kpipe raises on purpose.

    The message is one printable line, whatever a file or another library put into it.
    """

    def __str__(self) -> str:
        text = super().__str__()
        return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class ImageError(KpipeError, ValueError):
    """A picture cannot be read or encoded; the message names the file."""


class VideoError(KpipeError, ValueError):
    """A video cannot be read or written; the message names the file."""


class CameraError(KpipeError, RuntimeError):
    """A camera cannot be used; the message says what to do."""


class WindowError(KpipeError, RuntimeError):
    """No window can be opened; the message says why."""


class WriteError(KpipeError):
    """A file of results cannot be written; the message names the file.

    Attributes:
        errno: the system's number of the error, or None.
    """

    def __init__(self, message: str, errno: int | None = None) -> None:
        super().__init__(message)
        self.errno = errno


class FormatError(KpipeError, ValueError):
    """A file of results cannot be read, or cannot hold these; the message names the file."""


class BoxesError(KpipeError, ValueError):
    """A file of boxes cannot be used; the message names the file."""


class DatasetError(KpipeError, ValueError):
    """A data folder or one of its files cannot be used; the message names the file."""


class KaggleError(KpipeError, ValueError):
    """A file is not as Kaggle's are; the message has the file and the row."""


class ModelError(KpipeError, RuntimeError):
    """The file of a network is missing, damaged or of another kind."""


class CascadeError(KpipeError, RuntimeError):
    """A cascade file is missing, unreadable or not the one that was measured."""


class TrainingError(KpipeError, ValueError):
    """A run cannot be started, resumed or read; the message says why."""


class BatchError(KpipeError, RuntimeError):
    """A job cannot begin or go on; the message says what to do."""


class SourceError(BatchError):
    """An input of a job cannot be used; the message names it."""


class ReadError(BatchError, OSError):
    """A photograph of a job cannot be read; the message is the reason, without the file's name."""


class EngineError(BatchError):
    """No worker can be started."""


class OutputError(BatchError):
    """Results cannot be written, neither this one nor the next."""


def reason_of(error: BaseException) -> str:
    """What any exception says, on one line: the system's words alone where it has some."""
    words = str(getattr(error, "strerror", None) or error).split()
    return " ".join(words) or type(error).__name__
