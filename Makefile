# Each target creates what it needs: a virtual environment from locked, hashed dependencies. The locks name every
# package, so pip resolves nothing (--no-deps): a later release of a package cannot break an installation.
# The distribution's Python if it will do, since the packages run with it; and it is built with profiles of use (PGO), without
# which plain code takes twice the CPU. Else the first on the PATH.
SYSTEM := /usr/bin/python3
ABLE   := import sys; from ensurepip import bootstrap; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell $(SYSTEM) -c '$(ABLE)' 2> /dev/null && echo $(SYSTEM) || echo python3)
VENV   := .venv
BIN    := $(VENV)/bin
# Sources without a pyproject.toml are built as those with one: Debian's pip 23.0 else says that their old way will end.
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check --use-pep517
ARGS   ?=
B      ?= hold
NEEDS  := install it, on Debian and Ubuntu with: apt install python3 python3-venv. Then run make again.
NOT_INSTALLED = echo "The packages were not installed: see the line above. pip needs its index, by network or proxy \
(PIP_INDEX_URL, HTTPS_PROXY). Then run make again; if that fails, \`make clean\` first."; exit 1
GRANTS := from relay.store.privileges import grants_sql; print(end=grants_sql())
# Names of files with secrets, alerts in words, and the made-up registration of docs/api.md.
EXAMPLES := --exclude-lines '(_file = "|_FILE: |^ *summary: )' --exclude-secrets '^(Vq0zM3yX8sT1|2r5uGvTjJ1rN)'
# Tests are full of passwords and keys that open nothing; there the scan looks for the forms of real ones only.
NO_GUESSES := $(addprefix --disable-plugin ,Base64HighEntropyString HexHighEntropyString KeywordDetector BasicAuthDetector)
# Twice as many as two cores: half of the time of the tests is waiting.
SPREAD := --numprocesses 4 --dist worksteal
# Suites whose tests take minutes or share a server: a process begins with a half of the tests, or takes whole files.
LONG := --numprocesses 2 --dist worksteal
FILES := --numprocesses 2 --dist loadfile
# pytest compiles test modules with their asserts rewritten. Each of the four processes would do that for all of them.
# Tests themselves are not collected here: no function begins with "nothing".
REWRITE := $(BIN)/python -m pytest --collect-only -qq -o python_functions=nothing
# No test needs a CA of this host, and a TLS context that reads them all takes 25 ms: hundreds are made.
NO_CAS := SSL_CERT_FILE=/dev/null

# Compiled modules are kept, whatever the environment says: tests start hundreds of processes.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help demo test slow check lint format docs soak interop clients deb packages bench lock clean

help: ## list the targets
	@awk -F ' *:.*## ' '/^[a-z]+:.*## / { printf "  make %-9s%s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.run ## show the whole way of a mail on embedded defaults; ARGS=--once ends without Ctrl-C
	$(BIN)/relay demo $(ARGS)

test: $(VENV)/.dev ## run the tests but for the slow ones, with fewer random examples; ARGS go to pytest
	@[ -e tests/unit/__pycache__ ] || { $(REWRITE) tests/unit > /dev/null & \
	  $(REWRITE) tests/contract tests/integration tests/acceptance tests/defences > /dev/null; wait; }
	HYPOTHESIS_PROFILE=$${HYPOTHESIS_PROFILE:-quick} $(NO_CAS) $(BIN)/python -m pytest $(SPREAD) -m "not slow" $(ARGS)

slow: $(VENV)/.dev ## run the slow tests that `make test` leaves out
	$(BIN)/python -m pytest $(SPREAD) -m slow $(ARGS)

check: lint ## run the whole gate: all of lint, and all tests with coverage
	$(BIN)/python -m pytest $(SPREAD) --cov --cov-report=term:skip-covered $(ARGS)

lint: $(VENV)/.dev ## check format, lint rules, types, import rules, weaknesses and secrets
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/bandit --quiet --configfile pyproject.toml --recursive eas_watcher relay
	git ls-files -z ':!tests' ':!requirements' ':!clients/*/src/test/*' | xargs -0 $(BIN)/detect-secrets-hook $(EXAMPLES)
	git ls-files -z tests 'clients/*/src/test/*' | xargs -0 $(BIN)/detect-secrets-hook $(NO_GUESSES)

format: $(VENV)/.dev ## format the code and apply the safe fixes of ruff
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

docs: $(VENV)/.run ## write the documents that are generated from the code
	$(BIN)/python -m eas_watcher.tools.statuses > docs/eas-statuses.md
	$(BIN)/python -m relay.ops.reasons_document > docs/reasons.md
	$(BIN)/python -c 'from pathlib import Path; from relay.api.codes import extract; print(end=extract(Path("docs/api.md").read_text()))' > relay/api/.codes && mv relay/api/.codes relay/api/codes.md
	$(BIN)/python -c 'import sys; from relay.api.routes import described; sys.stdout.buffer.write(described().body)' > docs/.openapi && mv docs/.openapi docs/openapi.json
	$(BIN)/python clients/guides.py
	{ sed '/^$$/q' docs/postgresql-grants.sql; $(BIN)/python -c '$(GRANTS)'; } > docs/.grants && mv docs/.grants docs/postgresql-grants.sql

soak: $(VENV)/.dev ## long runs under faults: kills, outages, random answers
	$(BIN)/python -m pytest tests/soak $(LONG) $(ARGS)

interop: $(VENV)/.dev ## test against SOGo, Samba, proxies, nghttpd, PgBouncer, Docker, promtool and Zabbix; installs Debian packages, needs root
	$(BIN)/python -m pytest tests/interop $(FILES) $(ARGS)

clients: $(VENV)/.clients ## compile and test the clients for apps; installs a Kotlin compiler, needs npm and Java
	$(BIN)/python -m pytest tests/clients $(ARGS)

deb: $(VENV)/.dev ## build the Debian package into dist, for the Debian whose Python is the one of $(PYTHON)
	$(BIN)/python packaging/debian/build.py dist

packages: $(VENV)/.dev ## install package and wheel in an empty Debian, up to the first push; needs root
	$(BIN)/python -m pytest tests/packages $(ARGS)

bench: $(VENV)/.dev $(if $(filter fcm,$(B)),$(VENV)/.bench) ## measure: B=hold|latency|flood|floods|hostile|workers|fleet|apns|cluster|fcm|outbox|register|start|storm|handshake|move; prints "bench NAME VALUE UNIT" lines
	@$(BIN)/python tests/bench/reference.py
	$(BIN)/python tests/bench/$(B).py $(ARGS)

lock: $(VENV)/.dev ## resolve the dependencies again and lock them with hashes
	$(PIP) uv
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-header \
	  --no-emit-index-url --no-emit-find-links pyproject.toml -o requirements/run.txt
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-header \
	  --no-emit-index-url --no-emit-find-links --extra dev pyproject.toml -o requirements/dev.txt
	sed -n 's/^ *"\(gssapi.*\)",/\1/p' pyproject.toml | $(BIN)/uv pip compile --quiet --universal --python-version 3.11 \
	  --generate-hashes --no-header --no-annotate --no-emit-index-url --no-emit-find-links - -o requirements/kerberos.txt
	sed -n 's/^ *"\(opentelemetry.*\)",/\1/p' pyproject.toml | sort -u | $(BIN)/uv pip compile --quiet --universal --python-version 3.11 \
	  --generate-hashes --no-header --no-annotate --no-emit-index-url --no-emit-find-links -c requirements/dev.txt - -o requirements/otel.txt
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-header \
	  --no-emit-index-url --no-emit-find-links --extra bench -c requirements/dev.txt pyproject.toml -o requirements/bench.txt
	sed -n 's/^ *"\(tree-sitter.*\)",/\1/p' pyproject.toml | $(BIN)/uv pip compile --quiet --universal --python-version 3.11 \
	  --generate-hashes --no-header --no-annotate --no-emit-index-url --no-emit-find-links - -o requirements/clients.txt

clean: ## remove what the other targets made
	rm -rf $(VENV) build dist *.egg-info state .mypy_cache .ruff_cache .hypothesis .import_linter_cache .coverage

# A virtual environment without a working pip is what a failed first run leaves: it is made again.
$(VENV)/.run: requirements/run.txt pyproject.toml
	@command -v $(PYTHON) > /dev/null || { echo "There is no $(PYTHON): $(NEEDS)"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "$(PYTHON) is $$($(PYTHON) -V 2>&1), and Python 3.11 or newer is needed: make PYTHON=/path/to/python3 ..."; exit 1; }
	@$(PYTHON) -c 'import venv; from ensurepip import bootstrap' 2> /dev/null || \
	  { echo "$(PYTHON) cannot make virtual environments: $(NEEDS)"; exit 1; }
	@echo "preparing $(VENV): about a minute, once"
	@$(BIN)/python -m pip --version > /dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@$(PIP) --no-deps --require-hashes -r requirements/run.txt || { $(NOT_INSTALLED); }
	@$(PIP) --no-deps --editable . || { $(NOT_INSTALLED); }
	@$(BIN)/python -m pip --quiet check || { $(NOT_INSTALLED); }
	@touch $@

$(VENV)/.dev: requirements/dev.txt $(VENV)/.run
	@$(PIP) --no-deps --require-hashes -r requirements/dev.txt || { $(NOT_INSTALLED); }
	@$(BIN)/python -m pip --quiet check || { $(NOT_INSTALLED); }
	@touch $@

# Packages that only the benches use, to compare with.
$(VENV)/.bench: requirements/bench.txt $(VENV)/.dev
	$(PIP) --no-deps --require-hashes -r requirements/bench.txt
	@touch $@

# The parser that reads the Swift client.
$(VENV)/.clients: requirements/clients.txt $(VENV)/.dev
	@$(PIP) --no-deps --require-hashes -r requirements/clients.txt || { $(NOT_INSTALLED); }
	@touch $@
