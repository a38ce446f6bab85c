"""A CLIP tokenizer with one token per word of the mini world."""

import json
import re
from collections.abc import Iterable
from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import CLIPTokenizer

MAX_LENGTH = 24
_END_OF_WORD = "</w>"


def _byte_characters() -> list[str]:
    """CLIP's printable stand-ins for the 256 bytes, in its order."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [b for b in range(256) if b not in printable]
    return [chr(b) for b in printable] + [chr(256 + i) for i in range(len(hidden))]


def train_tokenizer(captions: Iterable[str]) -> CLIPTokenizer:
    """Merge every known word into one token; unknown words fall back to pieces and bytes."""
    words = sorted({word for caption in captions for word in re.findall(r"[a-z\-]+|,", caption)})
    alphabet = _byte_characters()
    pairs = Tokenizer(models.BPE(end_of_word_suffix=_END_OF_WORD))
    pairs.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(
        vocab_size=20_000,
        min_frequency=1,
        end_of_word_suffix=_END_OF_WORD,
        initial_alphabet=alphabet,
        show_progress=False,
    )
    pairs.train_from_iterator(words, trainer)
    merges: Any = [tuple(m) if isinstance(m, list) else tuple(m.split(" ")) for m in _merges(pairs)]
    tokens = dict.fromkeys([*alphabet, *(c + _END_OF_WORD for c in alphabet), *("".join(m) for m in merges)])
    tokens |= dict.fromkeys(["<|startoftext|>", "<|endoftext|>"])
    return CLIPTokenizer(vocab={t: i for i, t in enumerate(tokens)}, merges=merges, model_max_length=MAX_LENGTH)


def _merges(tokenizer: Tokenizer) -> list[list[str] | str]:
    merges: list[list[str] | str] = json.loads(tokenizer.to_str())["model"]["merges"]
    return merges
