# make demo: install embedkit into .venv and run the whole journey on handwritten digits.
# make test: install the test tools too and run everything that CI runs.
# make bench: print the figures of the benchmarks; best on a machine that does nothing else.
PYTHON ?= python3
VENV := .venv
PIP := $(VENV)/bin/python -m pip install --constraint tests/constraints.txt

.PHONY: demo test bench clean

demo: $(VENV)/installed
	$(VENV)/bin/embedkit demo

test: $(VENV)/installed-test
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" tests/check

bench: $(VENV)/installed-test
	EMBEDKIT_BENCH=1 $(VENV)/bin/python -m pytest tests/benchmarks -s -q

$(VENV)/installed: pyproject.toml tests/constraints.txt | $(VENV)/bin/python
	@echo "Installing embedkit and what it needs into $(VENV)."
	@echo "PyTorch and its GPU libraries are several GB: the first time takes minutes."
	$(PIP) --editable .
	@touch $@

$(VENV)/installed-test: $(VENV)/installed
	@echo "Installing the test tools into $(VENV)."
	$(PIP) --editable ".[test]"
	@touch $@

$(VENV)/bin/python:
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'embedkit needs Python 3.11 or newer and $(PYTHON) is %d.%d: name another with make PYTHON=python3.12' % sys.version_info[:2])"
	$(PYTHON) -m venv $(VENV)

clean:
	rm -rf $(VENV) demo
