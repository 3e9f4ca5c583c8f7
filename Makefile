# `make demo`, `make demo-attentionhand`, `make app` and `make test` each do all of the set-up on a fresh machine.

# The newest Python on the PATH that everything is tested with; PYTHON=... overrides.
PYTHON ?= $(shell for p in python3.14 python3.13 python3.12 python3.11 python3.10 python3 python; do \
	$$p -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 14))' 2>/dev/null && echo $$p && break; done)
BIN = .venv/bin

.PHONY: demo demo-attentionhand app test readme-test lint clean

demo: .venv/installed
	$(BIN)/python -m synthetic_hands.demo --output_dir results/demo

demo-attentionhand: .venv/installed
	$(BIN)/python -m synthetic_hands.demo_attentionhand --output_dir results/demo-attentionhand

app: .venv/installed-app
	$(BIN)/python app.py

# A process for each core, four at most: each may take 2 GB.
test: lint
	$(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile

# Every command of the README and of docs/, and its notebook, on a fresh clone with an environment of its own; about half an hour.
readme-test: .venv/installed
	$(BIN)/python tests/readme_commands.py

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

.venv/installed: requirements.txt
	@test -n "$(PYTHON)" || { echo "needs Python 3.10 to 3.14; pass PYTHON=/path/to/python if it is not on the PATH"; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --disable-pip-version-check -r requirements.txt
	touch $@

.venv/installed-app: requirements-app.txt .venv/installed
	$(BIN)/pip install --disable-pip-version-check -r requirements-app.txt
	touch $@

clean:
	rm -rf .venv .pytest_cache .ruff_cache results/demo results/demo-attentionhand results/app
