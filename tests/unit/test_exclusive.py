"""Locks that end with their owner."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from distalign.errors import UserError
from distalign.exclusive import claim, held, left_over, owner, remove_stale_locks

UUID = "0f8fad5b-d9cb-469f-a165-70867728950e"
HOLDER = """
import sys, time
from pathlib import Path
from distalign.exclusive import claim, held
if sys.argv[1] == "claim":
    kept = claim(Path(sys.argv[2]))
    print("ready", flush=True)
    time.sleep(60)
with held(Path(sys.argv[2]), "a job"):
    print("ready", flush=True)
    time.sleep(60)
"""


def holder(kind: str, path: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", HOLDER, kind, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def results(tmp_path: Path) -> tuple[Path, Path]:
    """A results directory with one lock of Snakemake on it, and one on something else."""
    locks = tmp_path / "locks"
    locks.mkdir()
    (locks / "0.input.lock").write_text("resources/prompts.json\n/elsewhere/a.parquet\n")
    (locks / "0.output.lock").write_text(f"resources/x\n{tmp_path / 'mini'}/a.parquet\n")
    return tmp_path / "mini", locks


def test_second_claim_is_told_who_was_first(tmp_path: Path) -> None:
    place, locks = results(tmp_path)
    with holder("claim", place) as process:
        assert f"process {process.pid} on " in str(owner(place))
        with pytest.raises(UserError, match=rf"another Snakemake is at work here \(process {process.pid} on .*\)"):
            claim(place)
        assert remove_stale_locks(place, locks) == []
        process.kill()


def test_kill_gives_everything_back(tmp_path: Path) -> None:
    place, locks = results(tmp_path)
    assert remove_stale_locks(place, locks) == []  # nobody has ever been here: not ours to judge
    with holder("claim", place) as process:
        process.kill()
    assert owner(place) is None
    assert remove_stale_locks(place, locks) == [locks / "0.output.lock"]
    assert [path.name for path in locks.iterdir()] == ["0.input.lock"]
    claim(place).close()


def test_job_waits_for_an_earlier_process_of_itself(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = tmp_path / "logs/job.log"
    with holder("job", log) as process:
        log.write_text("of the first")
        subprocess.Popen(["sh", "-c", f"sleep 1; kill -9 {process.pid}"])
        started = time.monotonic()
        with held(log, "finetune", poll=0.05):
            assert time.monotonic() - started > 0.8
    assert log.read_text() == "of the first"
    assert "still at work on finetune" in caplog.text


def test_left_over_jobs_are_those_of_this_preset_and_directory() -> None:
    queue = [
        f"1|{UUID}|rule_finetune_wildcards_mini_ours_gender_0|/work",
        f"2|{UUID}|rule_finetune_wildcards_mini2_ours_gender_0|/work",
        f"3|{UUID}|rule_finetune_wildcards_sd15_ours_gender_0|/work",
        f"4|{UUID}|rule_finetune_wildcards_mini_ours_gender_0|/elsewhere",
        "5|bash|rule_finetune_wildcards_mini_ours_gender_0|/work",
        f"6|{UUID}|(null)|/work",
        f"7|{UUID}|rule_aggregate_results_wildcards_mini|/work",
        f"8|{UUID}|rule_run_mini_ours_gender_0_classify_images_compute_bias_generate_images|/work",
        f"9|{UUID}|rule_run_sd15_ours_gender_0_classify_images_compute_bias_generate_images|/work",
    ]
    assert left_over(queue, "mini", Path("/work")) == ["1", "7", "8"]
