# Each target sets up what it needs; `make` alone lists them.
.DEFAULT_GOAL := help
.PHONY: help demo test virtualbox-lab e2e nightly check format bench fuzz image clean distclean

PYTHON := .venv/bin/python
SHELL_SCRIPTS := .ci/setup .ci/run tests/end_to_end.sh $(addprefix images/hostctl_images/,tiny/rc tiny/button tiny_qga/qga tiny_qga/shutdown) $(wildcard guestside/hostctl_guestside/*.sh) $(addprefix tests/virtualbox/lab/,build guest init kernel root)
FUZZ_SECONDS ?= 60
# More than cores: most tests wait, for a deadline or for a slow line.
WORKERS ?= 4

help: ## list the targets
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 24

demo: ## boot a machine with no network and show all that hostctl does with it
	@.ci/setup run
	@$(PYTHON) docs/demo.py

test: ## run all tests, those on real machines too (less: make test ARGS="-m 'not vm'")
	@.ci/setup develop virtualbox
	@$(PYTHON) -m pytest -n $(WORKERS) --dist loadgroup --no-loadscope-reorder $(ARGS)

virtualbox-lab: ## make the VirtualBox that the tests use (needs root; once: some six minutes)
	@.ci/setup virtualbox

e2e: ## use hostctl as its user would, from the command line alone, on real machines (ARGS="life files")
	@.ci/setup develop
	@tests/end_to_end.sh $(ARGS)

nightly: ## run the tests that take minutes: a whole Debian, VirtualBox's slow ways (needs root)
	@.ci/setup nightly virtualbox
	@HOSTCTL_NIGHTLY=1 $(PYTHON) -m pytest -m nightly --log-cli-level=INFO $(ARGS)

check: ## lint, types, import contracts, shell scripts, full coverage of the wire
	@.ci/setup develop
	$(PYTHON) -m ruff check
	$(PYTHON) -m ruff format --check
	$(PYTHON) -m mypy
	.venv/bin/lint-imports
	shellcheck $(SHELL_SCRIPTS)
	shfmt -d $(SHELL_SCRIPTS)
	$(PYTHON) -m coverage run -m pytest -q tests/unit/wire tests/property tests/fuzz
	$(PYTHON) -m coverage report --include='*/hostctl_channels/wire/*' --fail-under=100

format: ## format Python and shell scripts
	@.ci/setup develop
	$(PYTHON) -m ruff check --fix
	$(PYTHON) -m ruff format
	shfmt -w $(SHELL_SCRIPTS)

bench: ## measure, and draw the chart of bench/
	@.ci/setup bench
	@$(PYTHON) -m bench $(ARGS)

fuzz: ## fuzz the wire for a while (FUZZ_SECONDS=60)
	@.ci/setup develop fuzz
	@mkdir -p build/corpus
	$(PYTHON) -m tests.fuzz build/corpus tests/fuzz/corpus -max_total_time=$(FUZZ_SECONDS)

image: ## build the guest image again, from the newest packages
	@.ci/setup run
	@.venv/bin/hostctl image build --force tiny

clean: ## remove what tools left in the work tree
	rm -rf build dist .coverage .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

distclean: clean ## the same, and .venv
	rm -rf .venv
