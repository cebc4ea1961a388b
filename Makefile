# The commands of a day's work. What they do is in scripts/ and bench/; `make help` lists them.

VENV_PYTHON := .cache/venv/bin/python
EXAMPLES ?=
# The server makes namespaces and control groups; who is not root is asked for it by sudo.
AS_ROOT := $(if $(filter 0,$(shell id -u)),,sudo -E env "PATH=$$PATH")

.PHONY: help demo test bench bench-engine build clean

help: ## list these commands
	@grep -E '^[a-z-]+: .*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+): .*## /  make \1\t/' | expand -t 21

demo: build ## set everything up, deploy the examples, print the table of cold starts
	$(AS_ROOT) $(VENV_PYTHON) scripts/demo $(EXAMPLES)

test: ## set everything up and run every test
	scripts/test

bench: build ## print the figures of the README
	$(AS_ROOT) $(VENV_PYTHON) bench/run

bench-engine: build ## measure restores of many languages beside a fork
	$(AS_ROOT) $(VENV_PYTHON) bench/engine

build: ## install what is missing on this machine and build the release binary
	scripts/setup
	cargo build --release

clean: ## remove what was built, downloaded and cached
	cargo clean
	rm -rf .cache
