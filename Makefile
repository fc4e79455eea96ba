# The two set-up commands are `make demo` and `make test`; both install what they need into .venv.
PYTHON ?= python3
UV_VERSION := 0.13.9
BIN := .venv/bin

# Processes of tests side by side, e.g. TESTS="-n 0 tests/pipeline"; auto: tests/support/parallel.py.
TESTS ?= -n auto

.PHONY: setup demo test check lint test-all test-slow test-gpu torture privacy bench sbom vulnerabilities lock clean

setup: .venv/installed

demo: .venv/installed
	$(BIN)/python -m jobs.demo --output demo-output

test: .venv/installed
	$(BIN)/python -m pytest $(TESTS) -m "not gpu and not slow and not long"

check: lint test-all

test-all: .venv/installed
	$(BIN)/python -m pytest $(TESTS)

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test-slow: .venv/installed
	$(BIN)/python -m pytest -m slow

test-gpu: .venv/installed
	$(BIN)/python -m pytest -m gpu

torture: .venv/installed
	$(BIN)/python -m tests.torture

privacy: .venv/installed
	$(BIN)/python -m pytest $(TESTS) -m "not gpu" tests/privacy tests/decode/test_confine.py

sbom: .venv/installed
	$(BIN)/python deploy/sbom.py sbom.cdx.json

# Asks the data base of PyPI; where it cannot be reached, that is what it says.
vulnerabilities: .venv/installed
	$(BIN)/uv tool run pip-audit --strict --disable-pip --require-hashes -r requirements.lock || \
	  { echo "Known vulnerabilities: found above, or not checked, for want of a data base."; exit 1; }

bench: .venv/installed
	$(BIN)/python -m benchmarks.speed $(BENCH)
	$(BIN)/python -m benchmarks.memory
	$(BIN)/python -m benchmarks.plan_done
	$(BIN)/python -m benchmarks.audit_million

.venv/installed: requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; $(PYTHON) is older. Try: make PYTHON=python3.12 ..."; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	$(BIN)/uv pip install --quiet --require-hashes --python $(BIN)/python -r requirements.lock
	touch $@

lock: .venv/installed
	$(BIN)/uv pip compile --quiet --generate-hashes --universal --python-version 3.11 --group dev \
	  pyproject.toml -o requirements.lock

clean:
	rm -rf .venv demo-output .mypy_cache .pytest_cache .ruff_cache
