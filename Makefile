# `make` prints what there is, from the comments behind the targets.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
MANAGE := $(BIN)/python manage.py
DEV := DJANGO_CONFIGURATION=$${DJANGO_CONFIGURATION:-Dev}
COMPOSE := docker compose

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

help: ## This help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  \033[1m%-36s\033[0m %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: $(VENV)/dev staticfiles/.made ## Set everything up and serve on PORT (8000)
	@$(DEV) $(MANAGE) migrate --skip-checks --verbosity 0
	@$(DEV) $(MANAGE) load_catalogue
	@$(DEV) exec $(MANAGE) serve

test: $(VENV)/dev staticfiles/.made ## Run the tests, with a real Valkey and a real PostgreSQL
	$(BIN)/pytest $(ARGS)

test-browser: $(VENV)/dev staticfiles/.made ## Test the pages in Chromium, and picture them in screenshots/
	@command -v chromium >/dev/null || { echo "Chromium is missing: apt-get install chromium" >&2; exit 1; }
	$(BIN)/pytest -m browser tests/browser $(ARGS)

test-faults: $(VENV)/dev staticfiles/.made ## All tests, those that take minutes too
	$(BIN)/pytest -m "not browser" $(ARGS)

MINUTES ?= 10
RATE ?= 300
TTL ?= 10
soak: $(VENV)/dev staticfiles/.made ## RATE (300) requests a second and faults at random for MINUTES (10)
	$(BIN)/python -m tests.soak --minutes $(MINUTES) --rate $(RATE) --ttl $(TTL) $(ARGS)

install: $(VENV)/main staticfiles/.made ## All that `make serve` needs but the database

serve: ## The production server, with the environment as it is
	@exec $(MANAGE) serve

fake-ghibli: $(VENV)/main ## A fake Ghibli API on port 3900 (ARGS="--help" for its options)
	@exec $(BIN)/python -m fake_ghibli --port 3900 $(ARGS)

static: ## Collect the static files anew
	@rm -rf staticfiles
	@$(MAKE) --no-print-directory staticfiles/.made

check: $(VENV)/dev ## The gate: format, lint, types, Django's checks, migrations, tests
	$(BIN)/black --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/python -m mypy .
	DJANGO_CONFIGURATION=Production DJANGO_SECRET_KEY=$$($(BIN)/python -c 'import secrets; print(secrets.token_urlsafe(50))') \
	  $(MANAGE) check --deploy --fail-level WARNING
	$(DEV) $(MANAGE) makemigrations --check --dry-run
	@$(MAKE) --no-print-directory test

format: $(VENV)/dev ## Format the code and mend what the linter can
	$(BIN)/black --quiet .
	$(BIN)/ruff check --quiet --fix .

shell: $(VENV)/dev ## A Python shell with the models at hand
	@$(DEV) $(MANAGE) shell_plus

openapi: $(VENV)/dev ## Write docs/openapi.json anew, which the tests compare with the API's own
	@$(DEV) $(MANAGE) openapi > docs/openapi.json

migrations: $(VENV)/dev ## Write the migrations that the models ask for
	$(DEV) $(MANAGE) makemigrations

lock: var/poetry/bin/poetry ## Lock the dependencies anew: poetry.lock and requirements/
	$< lock
	@mkdir -p requirements
	$< export --quiet --format requirements.txt --output requirements/main.txt
	$< export --quiet --format requirements.txt --output requirements/dev.txt --with dev

create-env-vars-from-template: ## Copy .env and .poetry.env from their templates, with new secrets
	@sh scripts/create-env-vars.sh

docker-totoro-server: .env ## Serve on 8000 with Redis and PostgreSQL, in containers
	@sh scripts/check-env-vars.sh
	$(COMPOSE) up --build

docker-detached-totoro-server: .env ## The same in the background, until it is healthy
	@sh scripts/check-env-vars.sh
	$(COMPOSE) up --build --detach --wait || { $(COMPOSE) logs --tail 20 migrate web; exit 1; }

docker-totoro-server-down: .env ## Stop the containers; the database stays
	$(COMPOSE) --profile demo down

docker-run-tests: ## Run the tests in a container
	docker build --target test --tag totoro-test .
	docker run --rm --init totoro-test

.env:
	@echo "There is no .env yet: run 'make create-env-vars-from-template' first." >&2; exit 1

# A recipe runs only when what it was made from is newer.

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' \
	  || { echo "Totoro needs Python 3.11 to 3.14; '$(PYTHON)' is another (make PYTHON=python3.13 …)." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/main: requirements/main.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement $<
	@touch $@

$(VENV)/dev: requirements/dev.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement $<
	@touch $@ $(VENV)/main

# Source maps, the old Redoc and the module builds are most of drf-yasg's 25 MB, and nothing asks
# for them.
staticfiles/.made: requirements/main.txt totoro/static_files.py $(wildcard movies/static/*/* totoro/static/*/*) | $(VENV)/main
	@DJANGO_SECRET_KEY=none-needed-to-copy-files $(MANAGE) collectstatic --verbosity 0 --no-input \
	  --ignore '*.map' --ignore 'redoc-old' --ignore '*-es-bundle*.js'
	@touch $@

var/poetry/bin/poetry:
	$(PYTHON) -m venv var/poetry
	var/poetry/bin/pip install --quiet poetry==2.5.1 poetry-plugin-export poetry-plugin-pypi-mirror


.PHONY: openapi help run test test-browser test-faults soak install serve fake-ghibli static check format shell migrations lock \
  create-env-vars-from-template docker-totoro-server docker-detached-totoro-server \
  docker-totoro-server-down docker-run-tests
