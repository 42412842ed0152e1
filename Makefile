# Two commands do everything on a fresh machine: `make demo` and `make test`.
SHELL := /bin/bash
VENV := .venv
PYTHON := $(VENV)/bin/python
CORE_SOURCES := setup.py fastmeta/_core.pyx $(wildcard fastmeta/core/*.pxi fastmeta/stand_in/c/*)

.PHONY: demo test mutations test-openstack stack-start stack-stop stack-status lint references bench sanitize fuzz setup clean

setup: $(VENV)/.built

# tools/setup.sh installs Debian packages (as root; else it names what is missing), makes the virtual environment with an
# interpreter that other users can run too, and installs the project in it, which compiles the core.
$(VENV)/.installed: tools/setup.sh pyproject.toml
	tools/setup.sh $(VENV)
	touch $@

$(VENV)/.built: $(VENV)/.installed $(CORE_SOURCES)
	$(PYTHON) setup.py -q build_ext --inplace
	touch $@

demo: setup
	$(VENV)/bin/fastmeta demo

test: setup
	$(PYTHON) -m pytest

# A real Keystone, Neutron, RabbitMQ, MariaDB and nova-metadata, kept below build/openstack: docs/testing.md.
# FASTMETA_OPENSTACK_PORT is the first of the seven TCP ports on 127.0.0.1 that they take.
test-openstack: setup
	$(PYTHON) -m tests.openstack set-up
	$(PYTHON) -m pytest tests/openstack

# The same servers by hand. Tests that find them running leave them so.
stack-start stack-stop stack-status: stack-%: setup
	$(PYTHON) -m tests.openstack $*

# The code of identity safety broken in one place after the other: the machine of tests/property must find each.
mutations: setup
	$(PYTHON) -m pytest tests/property/test_mutations.py

lint: setup
	tools/lint.sh $(VENV)

# docs/configuration.md, docs/options-of-neutron.md and etc/fastmeta.conf.sample, made of the options. make lint says when
# they are out of date.
references: setup
	$(PYTHON) tools/config_reference.py

bench: setup
	tools/setup.sh $(VENV) bench
	$(PYTHON) -m bench

# The core's tests under AddressSanitizer, UndefinedBehaviorSanitizer and ThreadSanitizer: docs/testing.md.
sanitize: setup
	tools/sanitize.sh $(VENV)

# Fuzzing for FUZZ_SECONDS in all, on one processor. What it finds on the way is kept in build/fuzz/corpus.
# With a FUZZ_SEED it takes the same way each time.
FUZZ_SECONDS := 60
FUZZ_SEED := 0
fuzz: setup
	tools/setup.sh $(VENV) fuzz
	$(PYTHON) -m fuzz --seconds $(FUZZ_SECONDS) --seed $(FUZZ_SEED)

clean:
	rm -rf $(VENV) build dist *.egg-info fastmeta/_core.c fastmeta/_core*.so fastmeta/stand_in/bin bench/bin
