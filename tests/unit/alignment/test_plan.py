from collections import Counter

import pytest

from distalign.alignment.plan import TrainingPlan
from distalign.errors import UserError
from distalign.prompts import Prompt

PROMPTS = [Prompt(id=f"p{i}", text=f"text {i}", concept=f"c{i}", split="train") for i in range(5)]
SPEC = {"seed": 1, "images_per_step": 6, "prompts_per_step": 2, "sampler_steps": [19, 20, 21], "iterations": 20}


def test_every_prompt_comes_once_per_pass_with_new_noise_each_time() -> None:
    plan = TrainingPlan.from_spec(SPEC, PROMPTS)
    visits = [prompt.id for k in range(5) for prompt in plan.iteration(k).prompts]
    assert set(Counter(visits[:5]).values()) == set(Counter(visits[5:]).values()) == {1}
    assert visits[:5] != visits[5:]
    seeds = [seed for k in range(20) for seed in plan.iteration(k).noise_seeds]
    assert len(set(seeds)) == len(seeds) == 20 * 6
    assert {plan.iteration(k).steps for k in range(20)} == {19, 20, 21}


def test_groups_are_visited_equally_often() -> None:
    words = [Prompt(id=f"w{i}", text=f"word {i}", concept=f"w{i}", split="train", group="words") for i in range(2)]
    plan = TrainingPlan.from_spec(SPEC, PROMPTS + words)
    visits = Counter(prompt.id for k in range(10) for prompt in plan.iteration(k).prompts)
    assert visits == {f"p{i}": 2 for i in range(5)} | {"w0": 5, "w1": 5}
    seeds = [seed for k in range(10) for seed in plan.iteration(k).noise_seeds]
    assert len(set(seeds)) == len(seeds)


def test_sets_are_visited_equally_often_and_in_each_the_groups() -> None:
    one = [Prompt(f"a{i}", "", "", "train", group=f"g{i % 2}", set="one") for i in range(4)]
    two = [Prompt(f"b{i}", "", "", "train", set="two") for i in range(3)]
    plan = TrainingPlan.from_spec(SPEC, one + two)
    visits = Counter(prompt.id for k in range(12) for prompt in plan.iteration(k).prompts)
    assert visits == {f"a{i}": 3 for i in range(4)} | {f"b{i}": 4 for i in range(3)}


def test_iterations_are_a_pure_function_and_return_after_the_period() -> None:
    plan = TrainingPlan.from_spec(SPEC, PROMPTS)
    assert plan.iteration(7) == TrainingPlan.from_spec(SPEC, PROMPTS).iteration(7)
    assert plan.iteration(27) == plan.iteration(7)
    assert plan.iteration(7).prompt_index == (0, 0, 0, 1, 1, 1)
    assert TrainingPlan.from_spec(SPEC | {"seed": 2}, PROMPTS).iteration(7) != plan.iteration(7)


def test_a_longer_plan_begins_like_a_shorter_one() -> None:
    longer = TrainingPlan.from_spec(SPEC | {"iterations": 50}, PROMPTS)
    assert longer.iteration(19) == TrainingPlan.from_spec(SPEC, PROMPTS).iteration(19)


def test_images_that_cannot_be_divided() -> None:
    with pytest.raises(UserError, match="take 6 or 8 images"):
        TrainingPlan.from_spec(SPEC | {"images_per_step": 7}, PROMPTS)
