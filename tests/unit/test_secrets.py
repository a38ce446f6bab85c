"""Secrets of the environment are in no log, no provenance and no message: planted, and looked for."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from distalign.errors import UserError
from distalign.secrets import RedactingFormatter, find_secret, redact
from distalign.store.provenance import collect
from unit.test_workflow import run_job

TOKEN = "planted-0123456789abcdef"
NAMES = ("HF_TOKEN", "WANDB_API_KEY", "HUGGING_FACE_HUB_TOKEN", "AWS_SECRET_ACCESS_KEY", "MY_PASSWORD")


@pytest.mark.parametrize("name", NAMES)
def test_a_value_is_replaced_by_its_name(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, TOKEN)
    assert redact(f"Bearer {TOKEN}, twice {TOKEN}") == f"Bearer [{name}], twice [{name}]"


def test_the_longer_of_two_secrets_goes_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("WANDB_API_KEY", f"{TOKEN}-and-more")
    assert redact(f"{TOKEN}-and-more") == "[WANDB_API_KEY]"


def test_tokens_and_passwords_are_known_by_their_looks() -> None:
    assert redact("hf_" + "aB3" * 10) == "[secret]"
    assert redact("https://me:pass@host/x, http://host:80/a@b") == "https://[secret]@host/x, http://host:80/a@b"


def test_what_is_no_secret_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("HF_TOKEN", "1"), ("TOKENIZERS_PARALLELISM", "false-false"), ("HF_HOME", "/data/cache")):
        monkeypatch.setenv(name, value)
    text = "1 false-false /data/cache hf_home"
    assert redact(text) == text


def test_tracebacks_are_redacted_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    try:
        raise RuntimeError(f"401 for {TOKEN}")
    except RuntimeError as error:
        info: Any = (type(error), error, error.__traceback__)
    record = logging.LogRecord("x", logging.ERROR, "f", 1, "with %s", (TOKEN,), info)
    text = RedactingFormatter("%(message)s").format(record)
    assert TOKEN not in text
    assert "with [HF_TOKEN]" in text
    assert "RuntimeError: 401 for [HF_TOKEN]" in text


@pytest.mark.parametrize(
    "body",
    [
        f'logging.getLogger("distalign.x").info("Authorization: Bearer {TOKEN}")',
        f'logging.getLogger("urllib3").warning("%s", dict(os.environ))  # {TOKEN}',
        f'raise UserError("{TOKEN} is not admitted")',
        f'raise RuntimeError("{TOKEN}")',
        f'import warnings; warnings.warn("{TOKEN}")',
    ],
)
def test_no_job_logs_a_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    for name in NAMES:
        monkeypatch.setenv(name, TOKEN)
    result, log = run_job(tmp_path, body)
    assert "[" in log
    for file in tmp_path.rglob("*"):
        assert file.is_dir() or TOKEN not in file.read_text()
    assert TOKEN not in result.stdout + result.stderr


def test_provenance_holds_nothing_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.setenv(name, TOKEN)
    assert TOKEN not in json.dumps(collect("bias", {"rank": 8}, seeds={"run": 0}))


@pytest.mark.parametrize("spec", [{"settings": {"archive": f"x/{TOKEN}"}}, {"a": ["b", TOKEN]}, {TOKEN: 1}])
def test_a_secret_among_the_settings_is_refused(monkeypatch: pytest.MonkeyPatch, spec: dict[str, Any]) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with pytest.raises(UserError, match="holds the value of the environment variable HF_TOKEN") as refused:
        collect("finetune", spec)
    assert TOKEN not in str(refused.value)


def test_places_of_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert find_secret({"a": [1, None, {"b": f"x{TOKEN}"}]}) == (
        ("a", 2, "b"), "the value of the environment variable HF_TOKEN",
    )  # fmt: skip
    assert find_secret({"a": [1, 2.5, True, "hf_"]}) is None
    assert find_secret("https://me:secret@host") == ((), "a token or a password")
