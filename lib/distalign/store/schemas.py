"""The columns of every Parquet file of the pipeline. Types never depend on the data.

Where no face was found, box, landmarks, score and probabilities are null, never 0 or -1.
"""

from collections.abc import Iterable, Mapping

import pyarrow as pa

from distalign.config.attributes import ATTRIBUTES, PAPER_ATTRIBUTES

STRING, INT32, INT64, FLOAT, DOUBLE, BOOL = pa.string(), pa.int32(), pa.int64(), pa.float32(), pa.float64(), pa.bool_()
VECTOR = pa.list_(FLOAT)
SHARES = pa.map_(STRING, DOUBLE)  # class -> share; in duckdb: frequencies['female']
IMAGE = pa.struct([pa.field("bytes", pa.binary()), pa.field("path", STRING)])  # the Hugging Face image convention


def _required(name: str, kind: pa.DataType) -> pa.Field:
    return pa.field(name, kind, nullable=False)


# One face: x1, y1, x2, y2 and landmarks (x, y of left eye, right eye, nose, left and right mouth corner) in pixels.
FACE_FIELDS = [
    _required("found", BOOL),
    *(pa.field(name, FLOAT) for name in ("x1", "y1", "x2", "y2")),
    pa.field("landmarks", VECTOR),
    pa.field("score", FLOAT),
]

# Which evaluation of which run a row belongs to, so that a query over many files needs no file names.
RUN_FIELDS = [
    _required("preset", STRING),
    _required("run", STRING),
    _required("seed", INT64),
    _required("evaluation", STRING),
]

# Labelled photographs or renderings for classifiers, face embedding and face bank. Labels are class words.
FACES = pa.schema(
    [
        _required("image_id", STRING),
        _required("image", IMAGE),
        _required("split", STRING),
        *(pa.field(attribute, STRING) for attribute in PAPER_ATTRIBUTES),
        pa.field("identity", INT64),
        *FACE_FIELDS,
    ]
)

# Of published data sets, also the words they use themselves, which are finer than the classes.
PUBLISHED_FACES = pa.schema([*FACES, pa.field("published_race", STRING), pa.field("published_age", STRING)])

# Generated images. `index` counts within a prompt; equal (prompt_id, noise_seed) means the same initial noise.
IMAGES = pa.schema(
    [
        _required("image_id", STRING),
        _required("prompt_id", STRING),
        _required("prompt", STRING),
        _required("index", INT32),
        _required("noise_seed", INT64),
        _required("image", IMAGE),
    ]
)

# Per prompt, classifier and attribute (or joint attribute, `gender+race`); shares are over images with a face.
# `floor` and `target_floor`: what an exactly fair, or exactly on target, i.i.d. generator scores with n_faces images.
BIAS = pa.schema(
    [
        *RUN_FIELDS,
        _required("prompt_id", STRING),
        _required("classifier", STRING),
        _required("attribute", STRING),
        _required("frequencies", SHARES),
        pa.field("bias", DOUBLE),
        _required("n_images", INT32),
        _required("n_faces", INT32),
        pa.field("floor", DOUBLE),
        _required("target", SHARES),
        pa.field("target_distance", DOUBLE),
        pa.field("target_floor", DOUBLE),
    ]
)

# DINO features of generated images, as they are (not unit vectors), in the order of the images.
FEATURES = pa.schema([_required("prompt_id", STRING), _required("index", INT32), _required("dino", VECTOR)])

# The same of real pictures. part: `reference`, which images are compared with, or `floor`, as many others that are
# compared with them in the images' place. prompt_id and perceived classes are null for photographs without labels.
REFERENCE = pa.schema(
    [
        _required("part", STRING),
        pa.field("prompt_id", STRING),
        *(pa.field(attribute, STRING) for attribute in PAPER_ATTRIBUTES),
        _required("dino", VECTOR),
    ]
)

# Tidy results. prompt_id is null in rows about the whole run: there value is the mean and std the standard deviation
# over prompts, and n counts prompts; in rows about a prompt std is over images and n counts images. Measures of all
# images together (kid, fd_dino) have a row for the run only, without std, where n counts images. classifier is null for
# metrics no attribute classifier has a part in. low, high: 95% interval, by bootstrap; for shares of one prompt's
# images by Wilson's score, for measures of all images together by jackknife.
RESULTS = pa.schema(
    [
        *RUN_FIELDS,
        pa.field("prompt_id", STRING),
        pa.field("classifier", STRING),
        _required("metric", STRING),
        pa.field("value", DOUBLE),
        pa.field("std", DOUBLE),
        pa.field("low", DOUBLE),
        pa.field("high", DOUBLE),
        _required("n", INT32),
    ]
)

# Training, long form. phase: train | validation. Metrics: loss/align, loss/image, loss/face, loss/preserve (if set),
# bias/<attribute>, face_found, gradient_norm, seconds; classifier says who measured the bias (null for the others).
TRAIN_LOG = pa.schema(
    [
        _required("iteration", INT32),
        _required("phase", STRING),
        pa.field("classifier", STRING),
        _required("metric", STRING),
        pa.field("value", DOUBLE),
    ]
)


# Studies of gradient estimators. quantity: loss and gradient_norm per iteration (a soft prompt that learns one image),
# magnitude per sampler step (norm of its part of the gradient; step 0 is the first, at the largest timestep).
GRADIENT_STUDY = pa.schema(
    [
        _required("backbone", STRING),
        _required("guidance", DOUBLE),
        _required("sampler_steps", INT32),
        _required("estimator", STRING),
        _required("run", INT32),
        pa.field("iteration", INT32),
        pa.field("step", INT32),
        pa.field("timestep", INT32),
        _required("quantity", STRING),
        pa.field("value", DOUBLE),
    ]
)


def ORIGINALS(attributes: Iterable[str]) -> pa.Schema:
    """What the frozen model makes of a plan's training images: faces, `{attribute}={class}` probabilities, features."""
    return pa.schema(
        [
            _required("iteration", INT32),
            _required("prompt_id", STRING),
            _required("index", INT32),
            _required("noise_seed", INT64),
            _required("sampler_steps", INT32),
            *FACE_FIELDS,
            *(pa.field(column, FLOAT) for attribute in attributes for column in class_columns(attribute)),
            _required("clip", VECTOR),
            _required("dino", VECTOR),
            pa.field("face", VECTOR),
        ]
    )


def CLASSIFIED(read: Mapping[str, Iterable[str]]) -> pa.Schema:
    """Everything measured on one generated image; `read`: the attributes each classifier reads.

    Probabilities are in columns `{classifier}/{attribute}={class}`.
    """
    pairs = [(name, attribute) for name, attributes in read.items() for attribute in attributes]
    return pa.schema(
        [
            _required("prompt_id", STRING),
            _required("index", INT32),
            *FACE_FIELDS,
            *(pa.field(column, FLOAT) for name, attribute in pairs for column in class_columns(attribute, name)),
            *(pa.field(metric, FLOAT) for metric in ("clip_t", "clip_i", "dino")),
            pa.field("concept_readable", BOOL),
        ]
    )


def class_columns(attribute: str, classifier: str | None = None) -> list[str]:
    """Names of an attribute's probability columns, in class order."""
    prefix = f"{classifier}/" if classifier else ""
    return [f"{prefix}{attribute}={name}" for name in ATTRIBUTES[attribute]]
