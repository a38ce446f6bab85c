"""Convert an adapter that the paper's authors released."""

from pathlib import Path

from snakemake.iocontainers import Snakemake

from distalign.released.adapters import convert_adapter
from distalign.workflow import job

snakemake: Snakemake

with job(snakemake):
    backbone, run = Path(snakemake.input.backbone), Path(snakemake.output.spec).parent
    convert_adapter(snakemake.params.spec, backbone, run, Path.cwd())
