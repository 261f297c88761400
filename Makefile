# Rota's everyday commands. `make` alone lists them.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# Outside the checkout, so that every clone shares what is compiled and `git clean` costs nothing.
export CARGO_TARGET_DIR ?= $(HOME)/.cache/rota/target

# Compiled pieces that survive even `make clean`, where sccache is installed.
ifeq ($(origin RUSTC_WRAPPER),undefined)
ifneq ($(shell command -v sccache 2>/dev/null),)
export RUSTC_WRAPPER := sccache
endif
endif

.PHONY: help demo demo-claude test lint fmt docs bench bench-k8s charts-check observability-check images e2e cluster-up cluster-down cluster-test clean

help: ## List these commands
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-20s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: ## Run the main job on this repository's own files; needs Rust and a C compiler
	@scripts/demo

demo-claude: ## The same with the real Claude Code CLI: on your key, else against a local model API
	@scripts/demo-claude

test: ## Run every test that needs no root and no cluster (only some: make test TESTS="-p rota-core")
	@mkdir -p "$$CARGO_TARGET_DIR"; log="$$CARGO_TARGET_DIR/test.log"; began=$$SECONDS; verdict=passed; \
	cargo test --locked --no-fail-fast $(or $(TESTS),--workspace) 2>&1 | tee "$$log" || verdict=FAILED; \
	awk -v verdict=$$verdict -v seconds=$$((SECONDS - began)) \
	  '/^test .* \.\.\. FAILED/ { names = names "\n  " $$2 } \
	   /^test result:/ { suites++; passed += $$4; failed += $$6; ignored += $$8 } \
	   END { if (names) print "failed:" names; \
	         printf "tests %s: %d passed, %d failed, %d ignored, in %d suites and %d s\n", \
	           verdict, passed, failed, ignored, suites, seconds }' "$$log" \
	  | tee "$$CARGO_TARGET_DIR/test.summary"; \
	[ $$verdict = passed ]

lint: ## Check format, lints, directions between crates, licences, files, generated pages
	@cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo xtask check
	cargo xtask docs --check

fmt: ## Format the code
	@cargo fmt --all

docs: ## Write what is generated: docs/reference, docs/state-machine.md and crds
	@cargo xtask docs
	cargo xtask crds
	ROTA_BLESS=1 cargo test --quiet --locked --package rota-core --test it table

bench: ## Measure dispatch on this machine (more: make bench BENCH="--help")
	@cargo run --release --locked --package rota-cli --bin rota -- bench dispatch $(BENCH)

charts-check: ## Check the charts: values, rights, pod security, Kubernetes 1.30 to 1.34; needs helm and Go
	@scripts/charts-check

observability-check: ## Check alerts, dashboards and the place to see them; needs promtool
	@scripts/observability-check

images: ## Make the images rota:dev and rota-worker:dev without a container engine
	@scripts/image

e2e: ## Run the end-to-end tests on a real cluster, started and stopped (yours: make e2e KUBECONFIG=file; some: E2E="first")
	@scripts/e2e $(E2E)

bench-k8s: ## Measure tasks on a real cluster, with a Job for each task beside them (your cluster: KUBECONFIG=file)
	@scripts/e2e --bench

cluster-up: ## Start a real Kubernetes cluster of one node; needs root, Go and Linux (tests/cluster)
	@tests/cluster/cluster up

cluster-down: ## Stop it, and leave nothing of it
	@tests/cluster/cluster down

cluster-test: ## Try that cluster itself, beside any that is up
	@cd tests/cluster && CGO_ENABLED=0 go vet . && CGO_ENABLED=0 go test -count=1 -timeout=40m .

clean: ## Remove everything that was compiled
	@cargo clean
