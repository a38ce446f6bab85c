"""The helper every job script runs inside: logging, clean errors, threads."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

SCRIPT = """
from types import SimpleNamespace
from distalign.errors import UserError
from distalign.workflow import job
import logging, os, signal
context = SimpleNamespace(log=[{log!r}], threads=3, rule="finetune")
with job(context):
    logging.getLogger("distalign.test").info("threads %s", os.environ["OMP_NUM_THREADS"])
    {body}
"""


def run_job(tmp_path: Path, body: str) -> tuple[subprocess.CompletedProcess[str], str]:
    log = tmp_path / "logs" / "job.log"
    script = textwrap.dedent(SCRIPT).format(log=str(log), body=body)
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    return result, log.read_text()


def test_log_goes_to_the_rules_file_and_to_stderr(tmp_path: Path) -> None:
    result, log = run_job(tmp_path, "pass")
    assert result.returncode == 0
    assert "threads 3" in log
    assert "threads 3" in result.stderr


def test_what_it_took_stands_beside_the_log(tmp_path: Path) -> None:
    for body, outcome in (("pass", "completed"), ('raise UserError("x")', "failed"), ("1 / 0", "failed")):
        run_job(tmp_path, body)
        usage = json.loads((tmp_path / "logs" / "job.usage.json").read_text())
        assert usage["rule"] == "finetune"
        assert usage["attempts"][-1]["outcome"] == outcome
        assert usage["total"]["peak_memory_bytes"] > 1e6


def test_user_error_is_a_message_and_exit_status_1(tmp_path: Path) -> None:
    result, log = run_job(tmp_path, 'raise UserError("faces.parquet: truncated. Delete it and run again.")')
    assert result.returncode == 1
    for text in (log, result.stderr):
        assert "finetune: faces.parquet: truncated. Delete it and run again." in text
        assert "Traceback" not in text


def test_defect_leaves_its_traceback_in_the_log(tmp_path: Path) -> None:
    result, log = run_job(tmp_path, "1 / 0")
    assert result.returncode == 1
    assert "ZeroDivisionError" in log


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        ("MemoryError()", "Lower micro_batch"),
        (
            "RuntimeError('can\\'t allocate memory 9 bytes')",
            "Lower micro_batch",
        ),
        ("__import__('torch').cuda.OutOfMemoryError('CUDA out of memory. Tried 2 GiB')", "Tried 2 GiB"),
        ("OSError(28, 'No space left on device', 'made/up.tmp')", "/made/up.tmp: the disk is full"),
        ("OSError(28, 'No space left on device')", "the disk is full"),
        ("RuntimeError('I/O error: No space left on device (os error 28)')", "the disk is full"),
    ],
)
def test_what_is_used_up_is_a_message_with_a_way_out(tmp_path: Path, raised: str, said: str) -> None:
    result, log = run_job(tmp_path, f"raise {raised}")
    assert result.returncode == 1
    for text in (log, result.stderr):
        assert said in text
        assert "Traceback" not in text


def test_a_log_on_a_full_disk_does_not_hide_the_message(tmp_path: Path) -> None:
    script = textwrap.dedent(SCRIPT).format(log="/dev/full", body="raise UserError('too little of it')")
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "too little of it" in result.stderr
    assert "Traceback" not in result.stderr


def test_sigterm_ends_the_job_through_its_clean_up(tmp_path: Path) -> None:
    body = f"""
    try:
        os.kill(os.getpid(), signal.SIGTERM)
    finally:
        open({str(tmp_path / "cleaned")!r}, "w").close()
    """
    result, _ = run_job(tmp_path, body.strip())
    assert result.returncode == 128 + 15
    assert (tmp_path / "cleaned").exists()


@pytest.mark.parametrize("threads", [1, 2])
def test_torch_uses_the_granted_threads(threads: int) -> None:
    code = f"import torch; import distalign.workflow as w; w.use_threads({threads}); print(torch.get_num_threads())"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == str(threads)
