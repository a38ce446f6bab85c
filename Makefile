# Each target is one line over the tool behind it; set-up happens by itself, once, in .venv (envs/setup.sh).
# Extra words for the tool: make headline ARGS="--config preset=smoke", make test ARGS="-k targets".
SHELL := bash
.DEFAULT_GOAL := help
.PHONY: help setup headline paper ablations pretrain report compare reference archive verify pages test test-full test-methods test-gpu \
  test-slurm test-faults bench bench-sd15 docs lint lock

STAMP := .venv/lock-$(shell cat envs/requirements.txt envs/setup.sh pyproject.toml | sha256sum | cut -c1-16)
CORES ?= all
SNAKEMAKE = .venv/bin/snakemake --cores $(CORES)
PRESET ?= mini
COMPARED = results/$(PRESET)/results.parquet $(wildcard results/$(PRESET)/ablations.parquet) resources/reference/$(PRESET).parquet
BUNDLE ?= distalign-$(PRESET).tar.gz
PYTEST = .venv/bin/python -m pytest

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

setup: ## the environment in .venv, from the hash lock
	@test -e $(STAMP) || envs/setup.sh $(STAMP)

headline: setup ## the comparison of original and ours on the mini preset, and its pictures
	$(SNAKEMAKE) headline $(ARGS)

paper: setup ## everything the paper shows: its tables, figures and claims
	$(SNAKEMAKE) $(ARGS)

ablations: setup ## the rows beyond the paper's comparison
	$(SNAKEMAKE) ablations $(ARGS)

pretrain: setup ## train the mini preset's models again (hours)
	$(SNAKEMAKE) pretrain $(ARGS)

report: setup ## tables, figures, cards and provenance of what was made, to look at: report.zip
	$(SNAKEMAKE) --report report.zip $(ARGS)

compare: setup ## do the results agree with those kept in resources/reference? PRESET=mini
	.venv/bin/python -m distalign.measure.compare $(COMPARED) $(ARGS)

reference: setup ## keep the results as the reference; ARGS=--add: beside what else it has. PRESET=mini
	.venv/bin/python -m distalign.measure.compare $(COMPARED) --keep $(ARGS)

archive: setup ## the results of a preset in one file that says what it is. PRESET=mini
	.venv/bin/python -m distalign archive results/$(PRESET) $(ARGS)

verify: setup ## check every file of such a bundle. BUNDLE=distalign-mini.tar.gz
	.venv/bin/python -m distalign verify $(BUNDLE) $(ARGS)

pages: setup ## put the tables, figures and claims of the mini preset into README and docs
	.venv/bin/python -m distalign.present.publish mini README.md docs/results.md

test: setup ## the default tests
	$(PYTEST) -n auto --maxprocesses 4 --dist loadfile $(ARGS)

test-full: setup ## whole runs, with the numbers they must reach (hours)
	$(PYTEST) -m full $(ARGS)

test-gpu: setup ## precision, processes, resuming and memory on an NVIDIA GPU
	$(PYTEST) -m gpu tests/gpu $(ARGS)

test-methods: setup ## every method that ours is compared with, through the whole workflow
	$(PYTEST) -n auto --maxprocesses 4 --dist loadfile -m methods $(ARGS)

test-slurm: setup ## the workflow through a SLURM on this machine, and what goes wrong on a cluster
	tests/slurm/install.sh
	$(PYTEST) -m slurm $(ARGS)

test-faults: setup ## kills, full disks, truncated files, without SLURM
	$(PYTEST) -m "faults and not slurm" $(ARGS)

bench: setup ## speed and memory, side by side
	.venv/bin/python benchmarks/gradient_engine.py $(ARGS)

bench-sd15: setup ## Stable Diffusion 1.5 on this GPU: images per second, seconds per iteration, against the goals
	.venv/bin/python benchmarks/sd15.py $(ARGS)

docs: setup ## the documentation site, in site/
	.venv/bin/mkdocs build --strict $(ARGS)

lint: setup ## ruff, mypy, snakefmt, snakemake --lint
	.venv/bin/pre-commit run --all-files $(ARGS)

lock: setup ## a new envs/requirements.txt and envs/distalign.yaml from envs/requirements.in
	.venv/bin/python envs/lock.py $(ARGS)
