"""Published face data sets, CelebA and FairFace, read from where people put them into the one Parquet file of faces."""
