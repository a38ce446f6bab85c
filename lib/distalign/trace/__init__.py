"""Tracing results: one module per verb, which `distalign.__main__` picks.

What a file was made from (`explain`), whether it still is (`check`), how two differ (`diff`), and bundles that carry
all of it (`archive`, `verify`). Nothing here is behind a job of the workflow, and nothing imports torch.
"""
