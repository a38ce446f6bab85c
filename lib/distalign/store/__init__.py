"""What the pipeline writes to disk: Parquet, checkpoints, provenance, and the seeds that make it repeatable."""
