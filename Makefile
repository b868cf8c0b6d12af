# Two commands need nothing before them but Python >= 3.11 and make: `make demo` and `make test`.
# The first installs what the package needs to run; the second adds what its tests and linters need.
PYTHON ?= python3
BIN    := .venv/bin
RUN    := .venv/.installed-to-run
DEV    := .venv/.installed-to-test
DOCS   := .venv/.installed-for-docs
# Bytecode is kept, also where the environment asks for none: tests start many processes that import torch.
ENV    := MPLBACKEND=Agg PYTHONDONTWRITEBYTECODE=
OUT    ?= runs/demo
# Bytecode is written on first import, for what is imported alone: a quarter of the space and half of the time.
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --constraint constraints.txt

.PHONY: demo test reached lint format clean

demo: $(RUN)
	$(ENV) $(BIN)/ntkdiag demo --out $(OUT) --force

test: lint
	OMP_NUM_THREADS=1 $(ENV) $(BIN)/python -m pytest -n auto

# How much of the package the tests reach; slower, since every line is counted.
reached: $(DEV)
	OMP_NUM_THREADS=1 $(ENV) $(BIN)/python -m pytest -n auto --cov

lint: $(DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(DEV)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The manual, as pages in build/manual; links and references that lead nowhere are errors.
.PHONY: docs

docs: $(DOCS)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --clean

# The benchmarks: each makes its results and its figure again (minutes, on an idle machine).
.PHONY: peers speed growth sketch grids

peers speed growth sketch grids: $(DEV)
	$(BIN)/python -m analysis.$@.run
	$(ENV) $(BIN)/python figures/$@.py

# Kernels of projected gradients, by this package and by other tools, at equal error.
.PHONY: projections

projections: $(DEV)
	$(BIN)/python -m analysis.peers.projections
	$(ENV) $(BIN)/python figures/peers.py

# Kernels of one, two and four processes: differences, efficiency, and what the plan says of their cost.
.PHONY: processes

processes: $(DEV)
	$(BIN)/python -m analysis.processes.run

# Do the intervals cover, and what does N do to a rank? (half an hour on one core)
.PHONY: coverage

coverage: $(DEV)
	$(BIN)/python -m analysis.coverage.run
	$(BIN)/python -m analysis.coverage.sweep
	$(BIN)/python -m analysis.shares.run
	$(ENV) $(BIN)/python figures/coverage.py

# The suite on the lowest, the pinned and the newest versions of what the package needs, each in an environment of its own:
# gigabytes of wheels, and up to an hour. The last line of each run is a row of the table in CONTRIBUTING.md.
VERSIONS ?= build/versions
.PHONY: versions versions-lowest versions-pinned versions-newest

versions: versions-lowest versions-pinned versions-newest

versions-lowest versions-pinned versions-newest: versions-%:
	@test -x $(VERSIONS)/$*/bin/python || $(PYTHON) -m venv $(VERSIONS)/$*
	$(VERSIONS)/$*/bin/python -m pip install --quiet --upgrade --editable . --requirement tests/versions/$*.txt
	OMP_NUM_THREADS=1 $(ENV) $(VERSIONS)/$*/bin/python tests/versions/run.py $*

$(RUN): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) --editable .
	@touch $@

$(DEV): $(RUN)
	$(PIP) --editable '.[dev]'
	@touch $@

$(DOCS): $(RUN)
	$(PIP) --editable '.[docs]'
	@touch $@

clean:
	rm -rf .venv build dist *.egg-info .coverage .pytest_cache .mypy_cache .ruff_cache .hypothesis
