"""A small made-up study: two runs, three occupations, four images each."""

import numpy as np

from distalign.measure.bias import RunKey, bias_table
from distalign.measure.results import run_results
from distalign.store.parquet import IMAGES, TRAIN_LOG, image_cells, to_table
from unit.measure.predictions import predictions

PROMPTS = ("chef", "farm-worker", "judge")
ATTRIBUTES = ("gender", "race")
READ = (*ATTRIBUTES, "age")


def study(label, women, size=16, first_seed=100, seed=0, evaluation="occupations"):
    """IMAGES, CLASSIFIED, RESULTS: of 4 images per prompt `women` are female; a judge's last image has no face."""
    rows = []
    for prompt in PROMPTS:
        for index in range(4):
            gender = "female" if index < women else "male"
            hidden = prompt == "judge" and index == 3
            rows.append((prompt, None if hidden else {"gender": gender, "race": "asian", "age": "old"}))
    found = np.array([classes is not None for _, classes in rows])
    corners = {"x1": 4.0, "y1": 3.0, "x2": 12.0, "y2": 13.0}
    boxes = {name: np.ma.masked_array(np.full(len(rows), value), ~found) for name, value in corners.items()}
    classified = predictions(rows, ("evaluation",), READ, **boxes)
    generator = np.random.default_rng(len(label))
    pictures = [generator.integers(0, 256, (size, size, 3), dtype=np.uint8) for _ in rows]
    images = to_table(
        {
            "image_id": [f"{prompt}-{index}" for index, (prompt, _) in enumerate(rows)],
            "prompt_id": [prompt for prompt, _ in rows],
            "prompt": [f"a photo of the face of a {prompt.replace('-', ' ')}, a person" for prompt, _ in rows],
            "index": [position % 4 for position in range(len(rows))],
            "noise_seed": np.arange(len(rows)) + first_seed,
            "image": image_cells(pictures),
        },
        IMAGES,
    )
    return (
        images,
        classified,
        run_results(bias_table(classified, RunKey("mini", label, seed, evaluation), {}), classified),
    )


def log(iterations=30):
    """A training log: a falling loss, bias on training and validation prompts, two steps without a measurement."""
    rows = []
    for iteration in range(iterations):
        rows += [
            (iteration, "train", None, "loss/align", 1.5 - iteration / iterations),
            (
                iteration,
                "train",
                "loss",
                "bias/gender",
                {3: None, 4: float("nan")}[iteration] if iteration in (3, 4) else 0.7 - iteration / 60,
            ),
            (iteration, "train", None, "seconds", 6.0),
        ]
        if iteration % 10 == 0:
            rows += [(iteration, "validation", name, "bias/gender", 0.6) for name in ("loss", "evaluation")]
            rows.append((iteration, "validation", None, "face_found", 0.97))
    return to_table(dict(zip(TRAIN_LOG.names, zip(*rows, strict=True), strict=True)), TRAIN_LOG)
