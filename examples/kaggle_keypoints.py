"""Kaggle's Facial Keypoints Detection, step by step: look at the set, train, see how it went and
where it fails, and write a submission.

    python examples/kaggle_keypoints.py [--set FOLDER] [--steps N] [-o FOLDER]

FOLDER: Kaggle's training.csv, test.csv and IdLookupTable.csv; without it drawn faces take their
place. Needs the extras: pip install 'kpipe[train,plot]'. Cells begin with `# %%`: editors that know
them show the script as a notebook.
"""

# %% What is needed
import argparse
from dataclasses import asdict
from pathlib import Path

import numpy as np

from kpipe.kaggle.charts import curves_chart, keypoints_chart
from kpipe.kaggle.drawing import grid, worst, worst_sheet
from kpipe.kaggle.files import kept_out, read_lookup, read_test, read_training
from kpipe.kaggle.metrics import measure, rmse_by_face
from kpipe.kaggle.predict import Derived
from kpipe.kaggle.submission import check, submission_csv
from kpipe.kaggle.synthetic import from_drawings
from kpipe.kaggle.training import KeypointSettings, predict, train_keypoints
from kpipe.media.images import encode
from kpipe.utils.files import write_file

parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
parser.add_argument("--set", type=Path, help="of Kaggle's files")
parser.add_argument("--steps", type=int, default=400)
parser.add_argument("-o", "--output", type=Path, default=Path("kaggle_keypoints"))
arguments = parser.parse_args()
output = arguments.output

# %% 1. The set: without one of Kaggle's, drawn faces that lack labels as Kaggle's do
folder = arguments.set
if folder is None:
    folder = output / "drawn"
    from_drawings(400, labels=None, test_share=0.1).write(folder)
data = read_training(folder / "training.csv")
test = read_test(folder / "test.csv")
print(f"{len(data)} pictures, {np.isnan(data.points).mean():.0%} of the labels are missing")
write_file(output / "faces.png", encode(grid(data.pictures[:32], data.points[:32]), ".png"))

# %% 2. Train: a missing label is left out of the loss
settings = KeypointSettings(steps=arguments.steps)
trained = train_keypoints(data, settings)
write_file(output / "curves.png", curves_chart(asdict(trained.curves)))

# %% 3. How good it is on the pictures kept out, beside the 15 points that follow from the 68
held = data.take(kept_out(data.pictures, settings.validation))
found = {
    settings.arch: predict(trained.network, held.pictures),
    Derived.name: Derived()(held.pictures),
}
for name, points in found.items():
    rmse, mae, _ = measure(points, held.points)
    print(f"{name}: RMSE {rmse:.2f}, MAE {mae:.2f} pixels of 96")
write_file(output / "keypoints.png", keypoints_chart(found, held.points))

# %% 4. Where it fails: the worst faces, labels blue and predictions red
points = found[settings.arch]
errors = rmse_by_face(points, held.points)
sheet = worst_sheet(held, points, errors, worst(errors))
write_file(output / "worst.png", encode(sheet, ".png"))

# %% 5. The submission
lookup = read_lookup(folder / "IdLookupTable.csv")
order = check(lookup, test.ids, sample=None)
text = submission_csv(predict(trained.network, test.pictures), test.ids, lookup, order)
write_file(output / "submission.csv", text.encode())
print(f"written: submission.csv of {len(order)} rows, and pictures, in {output}")
