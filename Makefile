# Every target does its own set-up: a virtual environment with the pinned packages, made once and reused.
PYTHON ?= python3
STUDY ?= quickstart
VENV := .venv
READY := $(VENV)/ready
PEERS := .venv-bench
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export DVC_NO_ANALYTICS := true
export PYTHONUNBUFFERED := 1

.DEFAULT_GOAL := help
.PHONY: help run study reproduce verify ui track bench test lint clean

help:  ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

run: STUDY := quickstart
run: study  ## the main job: the study quickstart, about three minutes on 2 cores the first time

study: $(READY)  ## one study or experiment: make study STUDY=depth
	@stage=$$(python -m atelier check --study $(STUDY)) && dvc repro --quiet $$stage
	@dvc repro --quiet --single-item catalogue track
	@python -m atelier summary $(STUDY)

reproduce: $(READY)  ## every study (hours; finished jobs are reused)
	dvc repro

verify: $(READY)  ## run a study again in a clean copy and compare every output: make verify STUDY=quickstart
	@python -m atelier verify $(STUDY)

ui: $(READY)  ## bring MLflow up to date and serve it on 127.0.0.1:5000
	@python -m atelier ui

track: $(READY)  ## bring MLflow up to date
	@python -m atelier track

bench: $(READY) $(PEERS)/ready  ## time training against Keras, scikit-learn, Lightning: make bench BENCH=--quick
	@dvc repro --quiet add_noise@fashion-mnist
	@python -m bench $(BENCH)

test: $(READY) lint  ## lint and tests
	@python -m pytest

lint: $(READY)  ## style only
	@ruff check .

clean:  ## remove everything that can be made again, downloads and models included
	rm -rf $(VENV) $(PEERS) .atelier .dvc/cache .dvc/tmp data/raw data/noisy models/*/ mlflow.db* mlartifacts

$(READY): requirements.lock pyproject.toml
	@echo "Setting up $(VENV) (once; a few minutes)"
	@$(PYTHON) -c 'import sys; sys.exit("atelier needs Python 3.11 or newer, this is " + sys.version.split()[0] + "; set PYTHON=python3.11") if sys.version_info < (3, 11) else None'
	@test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	@$(VENV)/bin/python -m pip install --quiet --requirement requirements.lock
	@$(VENV)/bin/python -m pip install --quiet --no-deps --editable .
	@touch $@

$(PEERS)/ready: bench/requirements.lock
	@echo "Setting up $(PEERS) (once; a few minutes): the libraries that training is timed against"
	@test -x $(PEERS)/bin/python || $(PYTHON) -m venv $(PEERS)
	@$(PEERS)/bin/python -m pip install --quiet --requirement bench/requirements.lock
	@touch $@
