"""`kpipe kaggle`: Kaggle's Facial Keypoints Detection, and the training for it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kpipe.cli import keypoints

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from kpipe.kaggle.predict import Derived, Predictor
    from kpipe.structures.landmarks import Landmarks

app = typer.Typer(
    help="Kaggle's Facial Keypoints Detection: 96x96 gray faces, 15 named points.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

CHUNK = 64
"""Pictures from one step of the progress bar to the next."""

Force = Annotated[bool, typer.Option("--force", "-f", help="Replace results that exist.")]
Model = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="A network of kpipe kaggle train. [default: what follows from the 68 "
        "points of the packaged network]",
    ),
]

Four = Annotated[
    bool,
    typer.Option(
        "--four-as-kaggle",
        help="Of pictures with four labels, take nose_tip and mouth_center_bottom_lip as Kaggle's "
        "own files do: under the nose, and in the middle of the mouth. For the points that follow "
        "from the 68.",
    ),
]


@app.command()
def make(
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FOLDER", help="Where the files go.")
    ],
    faces: Annotated[
        list[Path] | None,
        typer.Option(metavar="DATA", help="Faces of 68 points, as kpipe evaluate reads them."),
    ] = None,
    drawn: Annotated[
        int | None,
        typer.Option(min=2, metavar="N", help="Instead of them: this number of drawn faces."),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            metavar="CSV",
            help="A training.csv, with or without its Image column: what frames faces alike and "
            "leaves out the same labels. [default: the figures of Kaggle's]",
        ),
    ] = None,
    test_share: Annotated[
        float, typer.Option(min=0.01, max=0.99, help="Share of the faces for the test set.")
    ] = 0.2,
    seed: Annotated[int, typer.Option(help="Repeats a set.")] = 0,
    skip_bad: Annotated[
        bool,
        typer.Option("--skip-bad", help="Leave out faces that cannot be used, and count them."),
    ] = False,
    force: Force = False,
) -> None:
    """Make a set in Kaggle's format, with the test labels that Kaggle keeps to itself.

    Writes training.csv, test.csv, IdLookupTable.csv, SampleSubmission.csv and test_labels.csv.
    """
    from kpipe.cli.console import error, progress, say
    from kpipe.datasets import DatasetError, read_samples
    from kpipe.kaggle.files import read_labels
    from kpipe.kaggle.synthetic import MadeSet, from_drawings, from_samples

    if (faces is None) == (drawn is None):
        raise typer.BadParameter("name either --faces or --drawn")
    for name in MadeSet.FILES:
        _claim(output / name, (labels,), force)
    like = read_labels(labels) if labels is not None else None
    skipped: list[DatasetError] = []
    if faces is not None:
        on_bad = skipped.append if skip_bad else None
        samples = [sample for part in faces for sample in read_samples(part, on_bad)]
        made = from_samples(
            progress(samples, len(samples), "faces"), like, test_share, seed, on_bad
        )
    else:
        made = from_drawings(drawn or 0, like, test_share, seed)
    for problem in skipped:
        error(str(problem))
    made.write(output)
    say(
        f"written: {len(made.training)} faces to train on and {len(made.truth)} to test with, in "
        f"{output}" + (f"; {len(skipped)} left out" if skipped else "")
    )


@app.command()
def show(
    data: Annotated[Path, typer.Argument(metavar="CSV|ZIP", help="A training.csv or test.csv.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="The picture, such as a .png.")
    ],
    predict: Annotated[
        bool, typer.Option("--predict", help="Also what is found, in red; always of a test.csv.")
    ] = False,
    model: Model = None,
    count: Annotated[int, typer.Option(min=1, max=400, help="How many faces, at random.")] = 32,
    seed: Annotated[int, typer.Option(help="Which ones.")] = 0,
    force: Force = False,
) -> None:
    """Faces side by side with their points: labels blue, predictions red."""
    import numpy as np

    from kpipe.cli.console import say
    from kpipe.kaggle.drawing import grid
    from kpipe.kaggle.files import is_test, read_test, read_training
    from kpipe.kaggle.predict import load
    from kpipe.media.images import encode
    from kpipe.utils.files import write_file

    _claim(output, (data, model), force)
    _claim_picture(output)
    test = is_test(data)
    predictor = load(model) if predict or test or model is not None else None
    truth = None
    if test:
        with keypoints.counting("rows") as on_row:
            unlabeled = read_test(data, on_row)
        pictures, names = unlabeled.pictures, [f"ImageId {number}" for number in unlabeled.ids]
    else:
        with keypoints.counting("rows") as on_row:
            labeled = read_training(data, on_row)
        pictures, truth = labeled.pictures, labeled.points
        names = [f"row {number}" for number in range(1, len(labeled) + 1)]
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.choice(len(pictures), min(count, len(pictures)), replace=False))
    found = _predicted(predictor, pictures[chosen]) if predictor is not None else None
    sheet = grid(
        pictures[chosen],
        truth[chosen] if truth is not None else None,
        found,
        [names[index] for index in chosen],
    )
    write_file(output, encode(sheet, output.suffix))
    say(f"written: {output}")


@app.command()
def submit(
    test: Annotated[Path, typer.Option(metavar="CSV|ZIP", help="test.csv.")],
    lookup: Annotated[Path, typer.Option(metavar="CSV|ZIP", help="IdLookupTable.csv.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The submission.")],
    sample: Annotated[
        Path | None,
        typer.Option(
            metavar="CSV",
            help="Whose rows the submission must have, in its order. [default: "
            "SampleSubmission.csv beside the lookup table, if it is there]",
        ),
    ] = None,
    model: Model = None,
    four_as_kaggle: Four = False,
    force: Force = False,
) -> None:
    """Predict the test set and write the coordinates that the lookup table asks for."""
    from kpipe.cli.console import say
    from kpipe.kaggle.files import read_lookup, read_sample, read_test
    from kpipe.kaggle.predict import Derived, load, only_four
    from kpipe.kaggle.submission import asked_points, check, submission_csv
    from kpipe.utils.files import write_file

    beside = lookup.with_name("SampleSubmission.csv")
    if sample is None and beside.is_file():
        sample = beside
    _claim(output, (test, lookup, sample, model), force)
    asked = read_lookup(lookup)
    wanted = read_sample(sample) if sample is not None else None
    with keypoints.counting("rows") as on_row:
        pictures = read_test(test, on_row)
    order = check(asked, pictures.ids, wanted)
    predictor = load(model)
    if isinstance(predictor, Derived):
        four = only_four(asked_points(asked, pictures.ids)) if four_as_kaggle else None
        found = predictor.points_of(_landmarks(predictor, pictures.pictures), four)
    else:
        found = _predicted(predictor, pictures.pictures)
    write_file(output, submission_csv(found, pictures.ids, asked, order).encode())
    checked = f", checked against {sample}" if sample is not None else ""
    say(f"written: {output}, {len(order)} rows{checked}")


@app.command()
def report(
    data: Annotated[Path, typer.Argument(metavar="CSV|ZIP", help="A training.csv.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FOLDER", help="Where the pictures go.")
    ],
    model: Model = None,
    everything: Annotated[
        bool,
        typer.Option("--all", help="Also pictures that the network was trained on."),
    ] = False,
    four_as_kaggle: Four = False,
    force: Force = False,
) -> None:
    """Measure on labeled pictures, and show where it fails and why.

    Prints RMSE, MAE and accuracy; writes the worst faces, the error of each keypoint, and the error
    against yaw, sigma and mouth opening. A network is measured beside what follows from the 68
    points, on the pictures of the data that its training kept out, or on all of them with --all.
    """
    from kpipe.cli.extras import require

    require("plot", "matplotlib")

    import numpy as np

    from kpipe.cli.console import say
    from kpipe.kaggle.files import read_training
    from kpipe.kaggle.metrics import measure
    from kpipe.kaggle.predict import Derived, KeypointNetwork, only_four
    from kpipe.kaggle.report import FILES, held_out_rows, write_report

    for name in FILES:
        _claim(output / name, (data, model), force)
    network = KeypointNetwork(model) if model is not None else None
    with keypoints.counting("rows") as on_row:
        labeled = read_training(data, on_row)
    rows = np.arange(len(labeled))
    if network is not None and not everything:
        rows = held_out_rows(labeled, network.validation, data)
    part = labeled.take(rows)
    ours = Derived()
    landmarks = _landmarks(ours, part.pictures)
    four = only_four(~np.isnan(part.points[..., 0])) if four_as_kaggle else None
    found = {ours.name: ours.points_of(landmarks, four)}
    if network is not None:
        found = {network.name: _predicted(network, part.pictures), **found}
    keypoints.print_metrics({name: measure(points, part.points) for name, points in found.items()})
    written = write_report(output, part, rows, found, landmarks)
    say(f"written: {', '.join(written)} in {output}")


@app.command()
def train(
    data: Annotated[Path, typer.Argument(metavar="CSV|ZIP", help="A training.csv.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FOLDER", help="Of the run; resumes there.")
    ],
    arch: Annotated[
        str, typer.Option(help="heatmap, or a baseline: naimishnet, five-conv, dense.")
    ] = "heatmap",
    steps: Annotated[int, typer.Option(min=1, help="Optimizer steps.")] = 5_000,
    batch: Annotated[int, typer.Option(min=2, help="Pictures a step.")] = 64,
    learning_rate: Annotated[
        float | None,
        typer.Option(
            min=0.0, help="Peak learning rate.", show_default="0.003; of the baselines 0.001"
        ),
    ] = None,
    validation: Annotated[
        float, typer.Option(min=0.0, max=0.9, help="Share of the pictures kept out.")
    ] = 0.1,
    seed: Annotated[int, typer.Option(help="Repeats a run.")] = 0,
) -> None:
    """Train a network of the 15 points, a few minutes on a CPU.

    Stopped at any time, the same command goes on from its last checkpoint. Needs the extras:
    pip install 'kpipe[train,plot]'. Writes network.onnx, checkpoint.pt, settings.json, log.csv,
    curves.png and worst.png to the folder.
    """
    keypoints.train(
        data,
        output,
        arch=arch,
        steps=steps,
        batch=batch,
        learning_rate=learning_rate,
        validation=validation,
        seed=seed,
    )


def _predicted(predictor: Predictor, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What the predictor finds, with a progress bar."""
    import numpy as np

    from kpipe.cli.console import progress

    chunks = np.array_split(pictures, -(-len(pictures) // CHUNK))
    return np.concatenate([predictor(part) for part in progress(chunks, len(chunks), "predicting")])


def _landmarks(ours: Derived, pictures: NDArray[np.uint8]) -> list[Landmarks]:
    """The 68 points of each picture, with a progress bar."""
    from kpipe.cli.console import progress

    return [ours.landmarks(picture) for picture in progress(pictures, len(pictures), "landmarks")]


def _claim(target: Path, inputs: tuple[Path | None, ...], force: bool) -> None:
    """Raises ImageError if a result must not be written: over an input, or without --force."""
    from kpipe.errors import ImageError
    from kpipe.utils.files import display_name

    if target.is_dir():
        raise ImageError(f"{display_name(target)}: is a folder")
    if target.exists():
        if any(path is not None and path.exists() and path.samefile(target) for path in inputs):
            raise ImageError(f"{display_name(target)}: is an input; name another result")
        if not force:
            raise ImageError(f"{display_name(target)}: exists; --force replaces it")


def _claim_picture(target: Path) -> None:
    from kpipe.media.images import can_write

    if not can_write(target.suffix):
        raise typer.BadParameter(f"no picture format is named {target}", param_hint="-o")
