import subprocess
import sys

import pytest

from distalign.store.seeds import stable_seed


def test_value_is_pinned_and_in_range():
    # A change here would change every image of every study.
    assert stable_seed("noise", 0, "lieutenant", 7) == 8060114719903668280
    assert all(0 <= stable_seed("range", index) < 2**63 for index in range(1000))


def test_same_in_another_process_with_another_hash_seed():
    code = "from distalign.store.seeds import stable_seed; print(stable_seed('a', 1, 'ß'))"
    printed = [
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2")
    ]
    assert printed[0] == printed[1] == f"{stable_seed('a', 1, 'ß')}\n".encode()


@pytest.mark.parametrize(
    ("left", "right"), [(("a", "bc"), ("ab", "c")), ((1,), ("1",)), (("a",), ("a", "")), ((1, 2), (2, 1))]
)
def test_different_parts_give_different_seeds(left, right):
    assert stable_seed(*left) != stable_seed(*right)


def test_only_strings_and_integers():
    for part in (1.0, True, None):
        with pytest.raises(TypeError, match="strings and integers"):
            stable_seed("a", part)
