# Every target is one command; `make help` lists them. Set-up (virtual environment, collections) is done when needed.
INVENTORY ?= inventory/localhost
ARGS ?=
PURGE ?=
PYTEST_ARGS ?=

comma := ,
purge := $(subst $(comma), ,$(PURGE))
ifneq ($(filter-out models webui engine,$(purge)),)
$(error PURGE=$(PURGE): give models, webui, engine or several of them with commas between)
endif
purge_flags := $(if $(filter models,$(purge)),-e '{"model_store_purge": true}') \
               $(if $(filter webui,$(purge)),-e '{"open_webui_purge": true}') \
               $(if $(filter engine,$(purge)),-e '{"docker_engine_purge": true}')

export PATH := $(CURDIR)/.venv/bin:$(PATH)
# named, because Ansible ignores an ansible.cfg in a world-writable folder
export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg
# Ansible refuses to run in a locale that is not UTF-8
export LC_ALL := C.UTF-8

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help deploy check status remove test test-full lint docs docs-check unit integration integration-full engine molecule molecule-full bench clean runtime dev

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "%-26s %s\n", $$1, $$2}'

deploy: runtime ## bring every service of INVENTORY up and verify it (ARGS= goes to ansible-playbook)
	ansible-playbook site.yml -i $(INVENTORY) $(ARGS)

check: runtime ## show what deploy would change, change nothing
	ansible-playbook site.yml -i $(INVENTORY) --check --diff $(ARGS)

status: runtime ## show what runs, whether it answers and how fast; changes nothing
	ansible-playbook playbooks/status.yml -i $(INVENTORY) $(ARGS)

remove: runtime ## take services, images, networks and files away (PURGE=models,webui,engine takes those too)
	ansible-playbook playbooks/remove.yml -i $(INVENTORY) $(purge_flags) $(ARGS)

test: lint docs-check unit integration molecule ## what CI runs

test-full: export LLMFLEET_EXAMPLES = new
test-full: lint docs-check unit integration integration-full molecule-full ## test, and what takes too long for it

lint: dev ## ruff, mypy, yamllint, ansible-lint, syntax check
	scripts/lint

docs: dev ## write the generated parts of the documentation
	scripts/docs

docs-check: dev ## fail when generated documentation is out of date
	scripts/docs --check

unit: dev ## the pure core, every module, packaging; seconds, no engine
	pytest tests/unit -n 2 $(PYTEST_ARGS)

integration: dev engine ## the deploy path and faults on a real engine with a real llama-server
	pytest tests/integration -m "not full" -n 2 --dist loadfile $(PYTEST_ARGS)

integration-full: dev engine
	pytest tests/integration -m full $(PYTEST_ARGS)

# what the tests run on, made by the project itself: a docker engine where none answers, and the image built from source
engine: dev
	ansible-playbook playbooks/host.yml playbooks/images.yml -i inventory/localhost \
		-e docker_engine_source=distro -e llama_cpp_image_source=build

molecule: dev engine ## the roles on systemd hosts: check, converge, idempotence, verify
	scripts/molecule

molecule-full: dev engine
	LLMFLEET_MOLECULE=full scripts/molecule

bench: dev ## measure against plain roles; prints medians and ratios
	@set -e; for script in bench/*.py; do echo "bench: $$script"; python $$script; done

clean: ## delete .venv and caches of this checkout (nothing on hosts)
	rm -rf .venv .cache .mypy_cache .pytest_cache .ruff_cache .ansible

runtime:
	@scripts/bootstrap runtime
	@.venv/bin/python scripts/collections

dev:
	@scripts/bootstrap dev
	@.venv/bin/python scripts/collections
