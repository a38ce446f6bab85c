import numpy as np
import pytest

from distalign.config.attributes import PAPER_ATTRIBUTES
from distalign.errors import UserError
from distalign.measure import quality
from distalign.measure.bias import RunKey, cells
from distalign.measure.quality import even
from distalign.measure.realism import ALL, FLOOR_PART, REFERENCE_PART, class_mix, quality_table
from distalign.store.parquet import FEATURES, REFERENCE, RESULTS, to_table
from unit.measure.predictions import predictions

KEY = RunKey("mini", "ours", 0, "occupations")
PROMPTS = [f"prompt-{number}" for number in range(8)]
IMAGES = 160  # 20 of each prompt
KINDS = [dict(zip(PAPER_ATTRIBUTES, name.split("+"), strict=True)) for name in cells(ALL)]


def normal(seed, images=IMAGES, dimension=4, mean=0.0, scale=1.0):
    return mean + scale * np.random.default_rng(seed).standard_normal((images, dimension))


def looks(kinds):
    """What a kind of person adds to a picture's features, in the direction of its own."""
    return 2 * np.array(
        [[kind["gender"] == "male", kind["race"] == "wmelh", 0, kind["age"] == "old"] for kind in kinds]
    )


def features(vectors):
    ids = [PROMPTS[i % 8] for i in range(len(vectors))]
    return to_table({"prompt_id": ids, "index": range(len(vectors)), "dino": vectors.astype(np.float32)}, FEATURES)


def classified(kinds):
    images = [(PROMPTS[i % 8], kind) for i, kind in enumerate(kinds)]
    return predictions(images, ("evaluation",), tuple(PAPER_ATTRIBUTES))


def reference(labelled=True, each=4, prompts=PROMPTS, different=0.0):
    """`each` pictures of every prompt and kind in both parts."""
    rows = [(part, prompt, kind) for part in (REFERENCE_PART, FLOOR_PART) for prompt in prompts for kind in KINDS]
    rows = [row for row in rows for _ in range(each)]
    parts, ids, kinds = zip(*rows, strict=True)
    vectors = normal(1, len(rows)) + different * looks(kinds)
    columns = {"part": parts, "prompt_id": ids if labelled else [None] * len(rows), "dino": vectors.astype(np.float32)}
    columns |= {name: [kind[name] if labelled else None for kind in kinds] for name in PAPER_ATTRIBUTES}
    return to_table(columns, REFERENCE)


def measured(vectors, kinds, real):
    table = quality_table(features(vectors), classified(kinds), "evaluation", real, KEY)
    assert table.schema.equals(RESULTS)
    return {row["metric"]: row for row in table.to_pylist()}


def everyone(seed=0):
    return [KINDS[i] for i in np.random.default_rng(seed).integers(16, size=IMAGES)]


@pytest.mark.parametrize("labelled", [True, False])
def test_real_pictures_score_the_floor_and_others_more(labelled):
    real = reference(labelled)
    same, worse = (measured(normal(3, mean=mean), everyone(), real) for mean in (0, 0.5))
    assert same.keys() == {"kid", "fd_dino", "floor/kid", "floor/fd_dino"}
    assert same["kid"]["low"] < 0 < same["kid"]["high"]
    assert same["floor/kid"]["low"] < 0 < same["floor/kid"]["high"]
    for metric in ("kid", "fd_dino"):
        assert worse[metric]["low"] > worse[f"floor/{metric}"]["value"]
        assert worse[metric]["low"] < worse[metric]["value"] < worse[metric]["high"]
    assert {(row["prompt_id"], row["classifier"], row["std"]) for row in same.values()} == {(None, None, None)}
    assert (same["kid"]["n"], same["floor/kid"]["n"]) == (IMAGES, 8 * 16 * 4)


def test_mix_of_people_is_no_lack_of_quality():
    """Men alone are far from everyone, and as real as they."""
    men = [kind | {"gender": "male"} for kind in everyone()]
    images = normal(3) + looks(men)
    held = measured(images, men, reference(different=1.0))
    assert held["kid"]["low"] < 0 < held["kid"]["high"]
    assert held["fd_dino"]["value"] < 0.5
    loose = measured(images, everyone(5), reference(different=1.0))  # were the classes read from other images
    assert loose["kid"]["low"] > 3 * abs(held["kid"]["value"])
    few = measured(images, men, reference(different=1.0, each=1))  # too few real pictures to count them by classes
    assert few["kid"]["value"] > 3 * abs(held["kid"]["value"])
    assert min(loose["fd_dino"]["low"], few["fd_dino"]["low"]) > 2 * held["fd_dino"]["value"]


def test_mix_is_counted_per_prompt_over_images_with_a_face():
    kinds = [KINDS[0], KINDS[15], KINDS[0], None, None]
    index = np.array([0, 0, 0, 0, 1])
    mix = class_mix(classified(kinds), "evaluation", index, 2)
    assert mix[0, [0, 15]] == pytest.approx([2 / 3, 1 / 3])
    assert mix[1] == pytest.approx(np.full(16, 1 / 16))
    gender_only = predictions([("cook", {"gender": "male"})], ("evaluation",), ("gender",))
    assert class_mix(gender_only, "evaluation", index[:1], 1) == pytest.approx(np.full((1, 16), 1 / 16))


def test_kid_is_reported_times_a_thousand():
    images, real = normal(3, mean=1), reference(labelled=False)
    pictures = np.stack(real["dino"].to_numpy(zero_copy_only=False))[: 8 * 16 * 4].astype(float)
    x, y = even(images.astype(np.float32).astype(float), np.arange(IMAGES) % 8), even(pictures, np.arange(512) % 24)
    assert measured(images, everyone(), real)["kid"]["value"] == pytest.approx(1000 * quality.kid(x, y)[0])


def test_same_input_same_numbers():
    real = reference()
    assert measured(normal(3), everyone(), real) == measured(normal(3), everyone(), real)


def test_other_prompts_and_single_images_are_refused():
    with pytest.raises(UserError, match="other prompts"):
        measured(normal(3), everyone(), reference(prompts=PROMPTS[1:]))
    with pytest.raises(UserError, match="at least; there is 1"):
        quality_table(features(normal(3, 1)), classified(KINDS[:1]), "evaluation", reference(), KEY)


def test_single_images_per_prompt_leave_kid_unknown():
    rows = measured(normal(3, 8), everyone()[:8], reference())
    assert (rows["kid"]["value"], rows["kid"]["low"], rows["kid"]["n"]) == (None, None, 8)
    assert rows["fd_dino"]["value"] > 0
