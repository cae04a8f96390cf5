# Targets run on a fresh machine with Python alone: each makes the virtual environment it needs.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SOURCES := safe_sft tests benchmarks docs

.PHONY: install demo test test-slow coverage quality style docs bench bench-gpu clean

install: $(VENV)/installed

# torch first and by exact version: the newest release would bring gigabytes of CUDA to a CPU machine.
$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q $(shell grep '^torch==' constraints.txt)
	$(BIN)/pip install -q -c constraints.txt -e '.[dev]'
	touch $@

demo: install
	$(BIN)/safe-sft demo

test: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m 'not slow' -n 2 --dist loadfile

test-slow: install
	$(BIN)/python -m pytest -m slow

# Line coverage of what `make test` runs; less than 92 % fails.
coverage: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m 'not slow' -n 2 --dist loadfile --cov --cov-report term:skip-covered

quality: install
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/bandit -q -r safe_sft -c pyproject.toml
	.ci/audit $(BIN)/pip-audit

style: install
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

# The site, in site/; a broken link or anchor fails.
docs: $(VENV)/docs-installed
	$(BIN)/mkdocs build

$(VENV)/docs-installed: $(VENV)/installed
	$(BIN)/pip install -q -c constraints.txt -e '.[docs]'
	touch $@

bench: install
	$(BIN)/python -m benchmarks.joint_forward
	$(BIN)/python -m benchmarks.training_cost --plot docs/training_cost.svg
	$(BIN)/python -m benchmarks.der_term
	$(BIN)/python -m benchmarks.importance
	$(BIN)/python -m benchmarks.merge

# All runs of a model are in memory at once, 45 GiB for a 7B one; on a smaller GPU, call it with `--apart`.
bench-gpu: install
	for model in llama2-7b mistral-7b gemma-2b; do $(BIN)/python -m benchmarks.training_cost --model $$model --batch 2 --replay 1; done

clean:
	rm -rf $(VENV) demo_out outputs build site *.egg-info
