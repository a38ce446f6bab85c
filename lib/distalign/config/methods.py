"""The methods a run may name. A new method is its file in `distalign.methods` and a line here."""

METHODS: dict[str, str] = {
    "original": "The model as it is.",
    "adjusted_dft": "The paper: finetuning with the distributional alignment loss and the adjusted gradient.",
}
UNCHANGED = "original"  # the method that has no adapter, no settings and no training
