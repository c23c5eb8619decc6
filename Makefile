# `make` lists the targets, with the comment after each.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
BENCHMARK := var/benchmarks/venv
AUDIT := var/audit/venv
MANAGE := $(BIN)/python manage.py
DEV := DJANGO_CONFIGURATION=$${DJANGO_CONFIGURATION:-Dev}
COMPOSE := docker compose

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  \033[1m%-36s\033[0m %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: database staticfiles/.made ## Install what is needed, and serve on PORT (8000)
	@$(DEV) exec $(MANAGE) serve

dev: database ## Serve with Django's development server, which restarts when a file changes
	@DJANGO_CONFIGURATION=Dev exec $(MANAGE) runserver $${PORT:-8000}

database: $(VENV)/dev ## Migrate the database and load the bundled catalogue
	@$(DEV) $(MANAGE) migrate --skip-checks --verbosity 0
	@$(DEV) $(MANAGE) load_catalogue

# In two processes, because most tests wait: for servers to start or for time-outs. ARGS="-n0 --pdb" debugs in one.
test: $(VENV)/test staticfiles/.made ## Run the tests, with a real Valkey and a real PostgreSQL
	$(BIN)/pytest --numprocesses 2 --dist loadfile $(ARGS)

# The tests of the Ghibli API client wait for time-outs on real connections.
test-fast: $(VENV)/test staticfiles/.made ## Run the unit tests: the quick ones that start no process
	$(BIN)/python -m pytest -p tests.support.without_processes -m "not slow and not minutes" -rfE \
	  --numprocesses 2 --dist worksteal \
	  $(addprefix --ignore tests/,acceptance benchmarks browser deploy docker faults project services/ghibli) $(ARGS)

test-browser: $(VENV)/test staticfiles/.made ## Test the pages in Chromium, with screenshots in screenshots/
	@command -v chromium >/dev/null || { echo "Chromium is missing: apt-get install chromium" >&2; exit 1; }
	$(BIN)/pytest -m browser tests/browser $(ARGS)

test-faults: $(VENV)/test staticfiles/.made ## Run all tests but the browser's, also those that take minutes
	$(BIN)/pytest -m "not browser and not docker" $(ARGS)

MINUTES ?= 10
RATE ?= 300
TTL ?= 10
soak: $(VENV)/test staticfiles/.made ## Send RATE (300) requests a second for MINUTES (10), with random faults
	$(BIN)/python -m tests.soak --minutes $(MINUTES) --rate $(RATE) --ttl $(TTL) $(ARGS)

benchmark: $(VENV)/test $(BENCHMARK)/installed staticfiles/.made ## Measure speed and memory, beside other servers (ARGS="--help" lists the options)
	$(BIN)/python -m benchmarks $(ARGS)

# requirements/tracing.txt contains requirements/main.txt. --strict: a package of which nothing is known is a
# failure. Without a network, pip-audit ends in a traceback, of which the last line says why.
audit: $(AUDIT)/installed ## Look for known vulnerabilities in the packages of production, at the Python Package Index
	@if $(AUDIT)/bin/pip-audit --strict --disable-pip --require-hashes --progress-spinner off \
	  --requirement requirements/tracing.txt $(ARGS) >var/audit/found 2>var/audit/log; \
	then tail -n 1 var/audit/log; \
	elif [ -s var/audit/found ]; then cat var/audit/found; exit 1; \
	else echo "make audit: the vulnerability service cannot be used, so nothing was checked:" \
	  "$$(tail -n 1 var/audit/log)" >&2; exit 1; fi

# Only the table [project]: with [tool.poetry], the name would have to be there.
sbom: $(AUDIT)/installed ## Write a list of the packages of production (CycloneDX) to var/sbom.json
	@sed '/^\[tool\./,$$d' pyproject.toml | $(AUDIT)/bin/python -W ignore::UserWarning -m cyclonedx_py requirements \
	  --pyproject /dev/stdin --output-file var/sbom.json requirements/main.txt

install: $(VENV)/main staticfiles/.made ## Install what `make serve` needs, except the database

serve: ## Start the production server with the current environment variables
	@exec $(MANAGE) serve

fake-ghibli: $(VENV)/main ## Serve a fake Ghibli API on port 3900 (ARGS="--help" lists its options)
	@exec $(BIN)/python -m fake_ghibli --port 3900 $(ARGS)

static: ## Collect the static files again
	@rm -rf staticfiles
	@$(MAKE) --no-print-directory staticfiles/.made

check: $(VENV)/test ## Check everything, as CI does: format, lint, types, Django, migrations, tests
	$(BIN)/black --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/python -m mypy .
	DJANGO_CONFIGURATION=Production DJANGO_SECRET_KEY=$$($(BIN)/python -c 'import secrets; print(secrets.token_urlsafe(50))') \
	  $(MANAGE) check --deploy --fail-level WARNING
	$(DEV) $(MANAGE) makemigrations --check --dry-run
	@$(MAKE) --no-print-directory test

format: $(VENV)/dev ## Format the code and fix what the linter can fix
	$(BIN)/black --quiet .
	$(BIN)/ruff check --quiet --fix .

shell: $(VENV)/dev ## Start a Python shell with the models imported
	@$(DEV) $(MANAGE) shell_plus

openapi: $(VENV)/dev ## Update docs/openapi.json, which the tests compare with the API
	@$(DEV) $(MANAGE) openapi > docs/openapi.json

migrations: $(VENV)/dev ## Create migrations for changed models
	$(DEV) $(MANAGE) makemigrations

lock: var/poetry/bin/poetry ## Update poetry.lock and requirements/ after a change in pyproject.toml
	$< lock
	$< export --quiet --output requirements/main.txt
	$< export --quiet --output requirements/tracing.txt --extras tracing
	$< export --quiet --output requirements/dev.txt --with dev
	$< export --quiet --output requirements/test.txt --with dev,test --extras tracing
	$< export --quiet --output requirements/audit.txt --only audit

lock-benchmark: $(BENCHMARK)/installed ## Update benchmarks/requirements.txt after a change in benchmarks/requirements.in
	$(BENCHMARK)/bin/pip install --quiet pip-tools
	$(BENCHMARK)/bin/pip-compile --quiet --upgrade --generate-hashes --strip-extras --no-header --no-annotate \
	  --no-emit-index-url --no-emit-trusted-host --no-emit-find-links --output-file benchmarks/requirements.txt \
	  benchmarks/requirements.in

create-env-vars-from-template: ## Create .env and .poetry.env from their templates, and random secrets in secrets/
	@sh scripts/create-env-vars.sh

docker-totoro-server: docker-check-settings ## Serve on port 8000 with Redis and PostgreSQL, in containers
	$(COMPOSE) up

docker-detached-totoro-server: docker-check-settings ## The same in the background; returns when it is healthy
	$(COMPOSE) up --detach --wait || { $(COMPOSE) logs --tail 20 migrate web; exit 1; }

docker-check-settings: ## Build the image, and check .env, secrets and port with it; changes nothing that runs
	@COMPOSE="$(COMPOSE)" sh scripts/check-env-vars.sh

docker-totoro-server-down: .env ## Stop and remove the containers, not the database
	$(COMPOSE) --profile demo --profile monitoring down

docker-upgrade: .env ## Replace the running web containers by ones of this code, without losing a request
	@COMPOSE="$(COMPOSE)" sh scripts/upgrade.sh

docker-rollback: .env ## Go back to the image that ran before the last upgrade, without losing a request
	@COMPOSE="$(COMPOSE)" sh scripts/upgrade.sh rollback

docker-backup: .env ## Save the database to FILE (backups/totoro-<time>.dump)
	@COMPOSE="$(COMPOSE)" sh scripts/backup.sh "$(FILE)"

docker-restore: .env ## Restore the database from FILE
	@COMPOSE="$(COMPOSE)" sh scripts/backup.sh restore "$(FILE)"

docker-test: $(VENV)/test ## Test the whole stack in containers, for MINUTES (10) under load; writes var/docker-test/report.md
	MINUTES=$(MINUTES) $(BIN)/pytest -m docker -v --capture=no tests/docker $(ARGS)

docker-dev: .env ## Serve with Django's development server in a container, which restarts when a file changes
	$(COMPOSE) --file docker-compose.yml --file docker-compose.dev.yml up --build

docker-run-tests: ## Run the tests in a container
	docker build --target test --tag totoro-test .
	docker run --rm --init totoro-test

.env:
	@echo "There is no .env yet: run 'make create-env-vars-from-template' first." >&2; exit 1

# The files below are made again only when what they depend on is newer.

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' \
	  || { echo "Totoro needs Python 3.11 to 3.14; '$(PYTHON)' is another version (try make PYTHON=python3.13 …)." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement $<

$(VENV)/main: requirements/main.txt | $(BIN)/python
	$(INSTALL)
	@touch $@

# Each of these files contains the one before it.
$(VENV)/dev: requirements/dev.txt | $(BIN)/python
	$(INSTALL)
	@touch $@ $(VENV)/main

$(VENV)/test: requirements/test.txt | $(BIN)/python
	$(INSTALL)
	@touch $@ $(VENV)/dev $(VENV)/main

$(BENCHMARK)/installed: benchmarks/requirements.txt
	$(PYTHON) -m venv $(BENCHMARK)
	$(BENCHMARK)/bin/pip install --quiet --disable-pip-version-check --require-hashes --requirement $<
	@touch $@

$(AUDIT)/installed: requirements/audit.txt
	$(PYTHON) -m venv $(AUDIT)
	$(AUDIT)/bin/pip install --quiet --disable-pip-version-check --require-hashes --requirement $<
	@touch $@

# Most of drf-yasg's 25 MB are files that no page uses: source maps, the old Redoc, module builds.
staticfiles/.made: requirements/main.txt totoro/static_files.py $(wildcard movies/static/*/* totoro/static/*/*) | $(VENV)/main
	@DJANGO_SECRET_KEY=none-needed-to-copy-files $(MANAGE) collectstatic --verbosity 0 --no-input \
	  --ignore '*.map' --ignore 'redoc-old' --ignore '*-es-bundle*.js'
	@touch $@

var/poetry/bin/poetry:
	$(PYTHON) -m venv var/poetry
	var/poetry/bin/pip install --quiet poetry==2.5.1 poetry-plugin-export poetry-plugin-pypi-mirror

.PHONY: help run dev database test test-fast test-browser test-faults soak benchmark audit sbom install serve fake-ghibli static check format \
  shell openapi migrations lock lock-benchmark create-env-vars-from-template docker-totoro-server docker-detached-totoro-server \
  docker-check-settings docker-totoro-server-down docker-upgrade docker-rollback docker-backup docker-restore docker-test docker-dev \
  docker-run-tests
