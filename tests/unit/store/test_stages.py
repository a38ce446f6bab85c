from itertools import chain

from distalign.store.files import read_json
from distalign.store.stages import MODULES, PACKAGE, RECORD, ROOT, SCRIPTS, STAGES, code_of, current, stage_files

SOURCE = '''"""Module."""

import math  # why


class Box:
    """Doc."""

    def area(self, side):
        """Two
        lines."""
        # a comment
        return side**2  # "not a string"


NAME = "# not a comment"
'''


def has_code(file):
    return bool(code_of(file.read_text(encoding="utf-8")))


def test_only_code_counts():
    same = SOURCE.replace("a comment\n", "another\n\n\n").replace('"""Doc."""', '"""Other.\n\n    More.\n    """')
    assert code_of(SOURCE) == code_of(same)
    assert code_of(SOURCE) != code_of(SOURCE.replace("side**2", "side**3"))
    assert code_of(SOURCE) != code_of(SOURCE.replace("# not a comment", "# not one"))
    assert '"""' not in code_of(SOURCE)


def test_every_stage_has_modules_and_every_working_module_a_stage():
    assert STAGES.keys() == MODULES.keys() == SCRIPTS.keys()
    assert all(stage_files(stage) for stage in STAGES)
    covered = set(chain.from_iterable(stage_files(stage) for stage in STAGES))
    plumbing = {"config", "store"}
    modules = [file for file in PACKAGE.glob("*/**/*.py") if file.relative_to(PACKAGE).parts[0] not in plumbing]
    commands = {
        "measure/agreement.py",
        "measure/compare.py",
        "present/costs.py",
        "present/hours.py",
        "present/publish.py",
    }  # behind no job
    commands |= {f"released/{name}.py" for name in ("__main__", "bank", "classes", "classifiers", "prompts")}
    commands |= {file.relative_to(PACKAGE).as_posix() for file in PACKAGE.glob("trace/*.py")}
    outside = {file.relative_to(PACKAGE).as_posix() for file in modules if file not in covered and has_code(file)}
    outside -= commands
    scripts = {path for path in (ROOT / "workflow_scripts").glob("*.py") if path.stem != "pretrain_stage"}
    outside |= {path.name for path in scripts - covered}
    assert not outside, f"add these to store/stages.py: {sorted(outside)}"


def test_versions_follow_the_code():
    recorded = read_json(RECORD)
    for stage, state in current().items():
        if state == recorded.get(stage):
            continue
        advice = "run `python -m distalign.store.stages --update`"
        if state["version"] == recorded.get(stage, {}).get("version"):
            advice = f"if its output changes, raise STAGES['{stage}'] in store/stages.py; in any case {advice}"
        raise AssertionError(f"the code of stage {stage} changed since it was recorded: {advice}")
