# make lab and make test set everything up by themselves; `make` alone lists all targets.
DATA ?= data/town
ARGS ?=
REAL ?= ../shared/data
BIN := .venv/bin
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
AS_ROOT := $(if $(filter 0,$(shell id -u)),--allow-root) # containers often run as root, which Jupyter refuses by itself
# threads that spin less while they wait, see benchmarks/busy.py
export GOMP_SPINCOUNT ?= 1000
PYTHON ?= $(shell for p in python3.11 python3; do $$p -c '$(NEW_ENOUGH)' 2>/dev/null && echo $$p && break; done)

.PHONY: help lab check check-code check-method check-use test fuzz mutants run artifacts notebooks town benchmark peers results site demo test-browser
help:
	@echo "make lab        install into .venv and open JupyterLab on the first notebook"
	@echo "make check      ruff, mypy and the quick unit tests, in a minute and a half"
	@echo "make test       install into .venv and run unit tests and strict nbval over every notebook"
	@echo "make fuzz       damage data and checkpoints at random for an hour and more, and count what becomes of them (SECONDS=60: a minute for each test)"
	@echo "make mutants    change the code in 300 small ways, one at a time, and count what the tests notice (N, SEED, FILES)"
	@echo "make run        train from nothing to a results table; DATA=path for your own data, ARGS='--epochs 5' for options"
	@echo "make artifacts  make the checkpoint and sweeps that the notebooks load (DATA=path for your own)"
	@echo "make notebooks  re-execute the notebooks in place"
	@echo "make town       write the bundled data again"
	@echo "make results    search, train and compare on five data sets (hours; goes on where it was stopped; REAL=folder)"
	@echo "make peers      install SASRec, GRU4Rec, eSASRec and item-kNN into .venv-peers, for make results"
	@echo "make site       build the static edition, docs/_build/html (needs npm once, for what the browser runs)"
	@echo "make demo       open the town, S and δ explorers as an app, for a talk or a class"
	@echo "make test-browser  drive JupyterLab, the site and the demo in Chromium; screenshots in tests/browser/shots"
	@echo "make benchmark  measure time and memory on this machine, into benchmarks/results.csv and .md"

.venv/installed: pyproject.toml constraints.txt
	@"$(PYTHON)" -c '$(NEW_ENOUGH)' 2>/dev/null || { echo "Python 3.11 or newer is needed; give one with PYTHON=/path/to/python3.11"; exit 1; }
	@echo "Making .venv and installing the pinned packages (a few minutes the first time)"
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[lab,test,data,faiss,results]" -c constraints.txt
	@touch $@

lab: .venv/installed
	@echo "Opening JupyterLab on notebooks/00_start_here.ipynb"
	$(BIN)/jupyter lab $(AS_ROOT) notebooks/00_start_here.ipynb

check: .venv/installed
	@$(MAKE) --no-print-directory -j3 --output-sync=target check-code check-method check-use

check-code:
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

QUICK := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -o addopts="" -q -m "not slow and not real_data"
check-method:
	$(QUICK) tests/method tests/data tests/views

check-use:
	$(QUICK) tests/experiments tests/exercises tests/test_*.py

test: .venv/installed
	@echo "Running unit tests and every notebook, comparing all outputs"
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --nbval --cov=dae4rec_core --cov-report=term-missing:skip-covered --cov-fail-under=95 --durations=10

SECONDS ?= 900
fuzz: .venv/installed
	FUZZ_SECONDS=$(SECONDS) OMP_NUM_THREADS=1 $(BIN)/python -m pytest -o addopts="" -q -rP tests/test_fuzz.py
	PYTHONPATH=. $(BIN)/python tests/fuzz_checkpoint.py --seconds $(SECONDS)

# the answers stay in mutants/, so that a run which was stopped goes on; remove the folder to begin anew
N ?= 300
SEED ?= 0
FILES ?=
mutants: .venv/mutants
	OMP_NUM_THREADS=1 $(BIN)/python tests/mutants.py $(N) $(SEED) $(FILES)

.venv/mutants: .venv/installed
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[mutants]" -c constraints.txt
	@touch $@

run: .venv/installed
	$(BIN)/python -m dae4rec_core run --data "$(DATA)" $(ARGS)

artifacts: .venv/installed
	$(BIN)/python -m dae4rec_core artifacts --data "$(DATA)" $(ARGS)

notebooks: .venv/installed
	$(BIN)/python notebooks/build.py

town: .venv/installed
	$(BIN)/python -m dae4rec_core town --seed 7 --out data/town

benchmark: .venv/installed
	$(BIN)/python -m benchmarks

# --no-deps: RecBole pins a ray and a colorama that don't exist for today's Python; what its models import is named here
peers: .venv-peers/installed
.venv-peers/installed: results/peers-requirements.txt
	@echo "Making .venv-peers for the methods that we compare with"
	@$(PYTHON) -m venv .venv-peers
	@.venv-peers/bin/python -m pip install --quiet --disable-pip-version-check -r results/peers-requirements.txt
	@.venv-peers/bin/python -m pip install --quiet --disable-pip-version-check --no-deps recbole==1.2.1
	@touch $@

results: .venv/installed peers
	$(BIN)/python -m results search run understand similarity clouds conformal cost maps tables --data $(REAL)

# beside the pins of the rest: what only the site, the demo and the browser tests need
.venv/browser: .venv/installed
	@echo "Adding the site, the demo and the browser tests to .venv"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[site,demo,browser]" -c constraints.txt
	@touch $@

docs/node_modules: docs/package-lock.json
	@cd docs && npm ci --ignore-scripts --silent
	@touch $@

site: .venv/browser docs/node_modules
	$(BIN)/python -m sphinx -q -W --keep-going -c docs . docs/_build/html
	@echo "Open docs/_build/html/docs/index.html"

demo: .venv/browser
	cd demo && JUPYTER_PATH=. ../$(BIN)/voila demo.ipynb

test-browser: site
	$(BIN)/python -m pytest -o addopts="" tests/browser -rP
