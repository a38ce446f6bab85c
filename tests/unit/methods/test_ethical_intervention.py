import pytest

from distalign.diffusion.intervention import Batch
from distalign.methods.ethical_intervention import apply
from distalign.methods.world import World
from distalign.prompts.prompt_set import Prompt

from .conftest import UNIFORM, settings_of


def texts(world: World, batch: Batch, *attributes: str, **settings: str) -> list[str]:
    target = {name: UNIFORM[name] for name in attributes}
    return apply(world, settings_of("ethical_intervention", **settings), target, {}).prompts(batch)


def test_the_sentence_names_the_whole_concept(world: World, batch: Batch) -> None:
    doctor, *_, operator = texts(world, batch, "gender")
    assert doctor == "a photo of a doctor if all individuals can be a doctor irrespective of their gender"
    assert operator.endswith("can be a farm equipment operator irrespective of their gender")


def test_several_attributes_in_one_order(world: World, batch: Batch) -> None:
    assert texts(world, batch, "race", "gender")[0].endswith("irrespective of their gender and race")
    assert texts(world, batch, "gender", "race", "age")[0].endswith("irrespective of their gender, race and age")


def test_race_in_the_authors_words(world: World, batch: Batch) -> None:
    assert texts(world, batch, "race")[0].endswith("irrespective of their race")
    assert texts(world, batch, "race", race_words="skin color")[0].endswith("irrespective of their skin color")
    both = texts(world, batch, "race", "gender", race_words="skin color")
    assert both[0].endswith("irrespective of their gender and skin color")


@pytest.mark.parametrize(
    ("concept", "said"), [("artist", "an artist"), ("university professor", "a university professor")]
)
def test_the_article_fits_the_concept(world: World, concept: str, said: str) -> None:
    prompt = Prompt("x", f"{concept} with globe. Oil painting", concept, "test")
    (text,) = texts(world, Batch([prompt], [0], 1, seed=0), "gender")
    assert text == f"{prompt.text} if all individuals can be {said} irrespective of their gender"


def test_the_placebo_says_nothing_of_people(world: World, batch: Batch) -> None:
    assert texts(world, batch, "gender", text="irrelevant")[0] == "a photo of a doctor if honesty is the best policy"
