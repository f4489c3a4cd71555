# Needs python3 (3.10 to 3.13, with venv) and make; everything else is installed into .venv.

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/installed
ONE_THREAD := OMP_NUM_THREADS=1 SDL_VIDEODRIVER=dummy

.DEFAULT_GOAL := help
.PHONY: help install demo test gates gates-cuda ablations world-models bench lint types fmt clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

install: $(STAMP)  ## create .venv with dreamgym and everything its tests need

# torch goes first, so that its index can be chosen: with TORCH_INDEX=<a CPU-only wheel index> a machine without a GPU saves 3 GB
$(STAMP): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install torch==2.13.0 $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX))
	$(BIN)/python -m pip install -e ".[dev]"
	touch $(STAMP)

demo: $(STAMP)  ## the main job: train a policy in the CarRacing dream, drive the real track, write demo/
	$(BIN)/dreamgym demo

test: $(STAMP) lint types  ## what must hold before a commit (under 15 minutes)
	$(ONE_THREAD) $(BIN)/python -m pytest -n 2

gates: $(STAMP)  ## learning results that take minutes to hours
	$(ONE_THREAD) $(BIN)/python -m pytest -m "slow and not cuda"

gates-cuda: $(STAMP)  ## on a GPU: its tests, then DreamerV2 at the paper's size for half an hour a task; skips without one
	$(BIN)/python -m pytest -m cuda -rs tests/test_noise.py tests/test_cuda.py tests/gates/test_cuda.py

ablations: $(STAMP)  ## what the papers' parts are for, and SB3 in their dreams: cells without a record, then docs/ablations.md (hours)
	$(ONE_THREAD) $(BIN)/python -m tests.gates.ablations all
	$(ONE_THREAD) $(BIN)/python -m tests.gates.strangers all
	$(BIN)/python -m benchmarks.ablations_table

world-models: $(STAMP)  ## ablations of World Models and its iterations: cells without a record, then the page's tables (hours)
	$(ONE_THREAD) $(BIN)/python -m tests.gates.world_models all
	$(ONE_THREAD) $(BIN)/python -m tests.gates.swingup_iterations all
	$(BIN)/python -m tests.gates.swingup_iterations table
	$(BIN)/python -m benchmarks.world_models_table

bench: $(STAMP)  ## speed of dreaming, beside the machine's ceiling
	$(BIN)/python benchmarks/imagination.py
	$(BIN)/python benchmarks/cmaes_generation.py

lint: $(STAMP)
	$(BIN)/ruff check .

types: $(STAMP)
	$(BIN)/mypy

fmt: $(STAMP)  ## format and sort imports
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:  ## remove what was built, not what was learnt
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
