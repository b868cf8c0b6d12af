# Two commands need nothing before them but Python >= 3.11 and make: `make demo` and `make test`.
PYTHON ?= python3
BIN    := .venv/bin
STAMP  := .venv/.installed
ENV    := MPLBACKEND=Agg
OUT    ?= runs/demo

.PHONY: demo test lint format clean

demo: $(STAMP)
	$(ENV) $(BIN)/ntkdiag demo --out $(OUT) --force

test: lint
	OMP_NUM_THREADS=1 $(ENV) $(BIN)/python -m pytest -n auto

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The benchmarks: each makes its results and its figure again (minutes, on an idle machine).
.PHONY: peers speed growth

peers speed growth: $(STAMP)
	$(BIN)/python -m analysis.$@.run
	$(ENV) $(BIN)/python figures/$@.py

# Do the intervals cover, and what does N do to a rank? (half an hour on one core)
.PHONY: coverage

coverage: $(STAMP)
	$(BIN)/python -m analysis.coverage.run
	$(BIN)/python -m analysis.coverage.sweep
	$(ENV) $(BIN)/python figures/coverage.py

$(STAMP): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $(STAMP)

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
