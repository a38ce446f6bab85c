"""Predictions with known classes, for the tests of measures and figures."""

import numpy as np

from distalign.config.attributes import ATTRIBUTES
from distalign.store.parquet import CLASSIFIED, class_columns, to_table


def predictions(images, classifiers=("evaluation",), attributes=("gender", "race"), **columns):
    """CLASSIFIED rows from (prompt, {attribute: class} or None without a face), in all classifiers' names."""
    found = np.array([classes is not None for _, classes in images])
    index = {}
    rows = {
        "prompt_id": [prompt for prompt, _ in images],
        "index": [index.setdefault(prompt, iter(range(10**6))).__next__() for prompt, _ in images],
        "found": found,
        "landmarks": [None] * len(images),
        **{name: np.ma.masked_array(np.ones(len(images)), ~found) for name in ("x1", "y1", "x2", "y2", "score")},
        **{name: np.full(len(images), 0.5) for name in ("clip_t", "clip_i", "dino")},
        "concept_readable": [True] * len(images),
        **columns,
    }
    for classifier in classifiers:
        for attribute in attributes:
            names = ATTRIBUTES[attribute]
            for name, column in zip(names, class_columns(attribute, classifier), strict=True):
                rows[column] = [
                    None
                    if classes is None
                    else (0.9 if classes.get(attribute, names[0]) == name else 0.1 / (len(names) - 1))
                    for _, classes in images
                ]
    return to_table(rows, CLASSIFIED(dict.fromkeys(classifiers, attributes)))
