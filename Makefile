# The OpenLoop Data Shuttle. `make` shows the targets.

PYTHON ?= python3
VENV := .venv
READY := $(VENV)/.ready
READY_TEST := $(VENV)/.ready-test
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help run service test test-keeper faults bench dashboards screenshots lint format clean

help: ## show the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

run: $(READY) ## make the environment, start the server (ARGS="..." passes options)
	@exec ./server.py $(ARGS)

service: $(READY) ## install ODS as a service of systemd and start it (as root, in /opt/ods; docs/operations.md)
	@case $(CURDIR)/ in /home/*|/root/*) \
		echo "a service cannot read a home directory; put ODS in /opt/ods"; exit 2;; esac
	$(VENV)/bin/python -m compileall -q ods
	install -D -m 644 conf/systemd/sysusers.conf /etc/sysusers.d/ods.conf
	systemd-sysusers /etc/sysusers.d/ods.conf
	@runuser -u ods -- $(CURDIR)/$(VENV)/bin/ods --version || \
		{ echo "the user ods cannot run it: let all users read $(CURDIR) and its Python"; exit 2; }
	for unit in ods.service ods.socket; do \
		sed 's|/opt/ods|$(CURDIR)|g' conf/systemd/$$unit > /etc/systemd/system/$$unit || exit; done
	ln -sfn $(CURDIR)/$(VENV)/bin/ods /usr/local/bin/ods
	systemctl daemon-reload
	systemctl enable --quiet ods.socket ods.service
	systemctl start ods.socket
	systemctl restart ods.service

test: $(READY_TEST) lint ## make the environment, check the code and run all tests (ARGS="..." passes options to pytest)
	$(VENV)/bin/python -m pytest $(ARGS)

test-keeper: $(READY_TEST) ## run the tests of the whole program once more, with a keeper where they have none otherwise
	ODS_TEST_KEEPER=1 $(VENV)/bin/python -m pytest tests/test_whole_*.py $(ARGS)

faults: $(READY_TEST) ## kill, cut off and fill up a loaded ODS, and compare all that it was sent (ARGS="--help" shows how)
	PYTHONPATH=tests $(VENV)/bin/python -m faults $(ARGS)

bench: $(READY_TEST) ## measure how fast ODS is, beside what it is compared to (ARGS="--help" shows how)
	PYTHONPATH=tests $(VENV)/bin/python -m bench $(ARGS)

dashboards: $(READY) ## bring units and limits of conf/sensors.toml into Grafana's dashboard (ARGS="--help" shows how)
	$(VENV)/bin/python -m ods dashboards $(ARGS)

screenshots: $(READY_TEST) ## take the pictures of the live page anew, into docs/screenshots/ (needs influxd and chromium)
	ODS_SCREENSHOTS=docs/screenshots $(VENV)/bin/python -m pytest -k pictures tests/test_whole_page_looks.py $(ARGS)

lint: $(READY_TEST) ## ruff (format and lint) and mypy
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy

format: $(READY_TEST) ## let ruff format the code and mend what it can
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

clean: ## remove the environment and all caches
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .hypothesis .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "ODS needs Python 3.11 or later; name one with: make PYTHON=/path/to/python3"; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(READY): $(VENV)/bin/python setup.cfg pyproject.toml
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(READY_TEST): $(READY)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $@
