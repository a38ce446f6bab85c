"""The paper: targets by optimal transport, the losses, adjusted direct finetuning, the training loop."""
