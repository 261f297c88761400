# Everyday commands. `make` alone lists them.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# Outside the checkout: all clones share it, and `git clean` keeps it.
export CARGO_TARGET_DIR ?= $(HOME)/.cache/rota/target

# With sccache, compiled crates survive even `make clean`.
ifeq ($(origin RUSTC_WRAPPER),undefined)
ifneq ($(shell command -v sccache 2>/dev/null),)
export RUSTC_WRAPPER := sccache
endif
endif

.PHONY: console console-load console-test help demo demo-claude test chaos chaos-replicas chaos-workflows long-log test-postgres differential mutants million compat transfers disk test-gitea http-clients http-fuzz coverage lint words fmt docs bench bench-release instructions bench-peers bench-k8s charts-check observability-check
.PHONY: images sbom advisories e2e e2e-full e2e-at-rest cluster-up cluster-down cluster-test clean

help: ## List these commands
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-20s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: ## Run a chain of tasks on this repository's files, and each template that comes with Rota; needs Rust, a C compiler, git and Python 3
	@scripts/demo

demo-claude: ## Run the demo with the real Claude Code CLI: on your key, else against a local model API
	@scripts/demo-claude

test: ## Run every test that needs neither root nor a cluster (some of them: make test TESTS="-p rota-core")
	@scripts/test $(TESTS)

console: ## Build the control centre, which the next build contains; needs Node 20
	@scripts/console

console-load: ## Measure the control centre with 100 open pages, 100,000 tasks, a log of 1,016 MiB and a graph of 10,000 steps
	@scripts/console-load

console-test: ## Test the control centre in Chromium against a real `rota dev`; needs chromium
	@scripts/console-test

chaos: ## Run Rota as processes with hundreds of tasks while everything around them fails (make chaos SEEDS=50 FIRST=1)
	ROTA_CHAOS_SEEDS=$(or $(SEEDS),10) ROTA_CHAOS_FIRST_SEED=$(or $(FIRST),1) cargo test --locked -p rota-cli --test processes -- \
		chaos::all --nocapture

chaos-replicas: ## The same with three replicas on PostgreSQL, which are killed, frozen, cut off and full, with wrong clocks (make chaos-replicas SEEDS=20 FIRST=1)
	ROTA_CHAOS_SEEDS=$(or $(SEEDS),10) ROTA_CHAOS_FIRST_SEED=$(or $(FIRST),1) cargo test --locked -p rota-cli --test processes -- \
		chaos::replicas --nocapture

test-postgres: ## Test the store, replicas, backups and moves on the newest PostgreSQL that is installed
	@scripts/test -p rota-store-postgres
	@scripts/test -p rota-cli --test processes -- replicas:: compose:: moving::

differential: ## Give thousands of random commands to PostgreSQL and to the in-memory store, which must agree (make differential CASES=1000)
	ROTA_TEST_CASES=$(or $(CASES),200) cargo test --locked -p rota-store-postgres --test it -- random:: --nocapture

mutants: ## Leave out one rule of ownership and fences after the other: a test must fail for each (make mutants NAMES="epoch doubt")
	@scripts/mutants $(NAMES)

million: ## Execute 1,000,000 tasks on each store while the control plane is killed; takes about 5 GB of disk (make million TASKS=100000)
	ROTA_CHAOS_TASKS=$(or $(TASKS),1000000) cargo test --locked -p rota-cli --test processes -- --test-threads 1 --nocapture \
		chaos::many

long-log: ## Read the longest log that a task may have from its start, and print the memory that this takes (make long-log MIB=200)
	ROTA_LOG_MIB=$(or $(MIB),1016) cargo test --locked -p rota-cli --test processes -- long_log --nocapture

chaos-workflows: ## Kill the control plane in workflows of 10,000 steps with tasks that fail (make chaos-workflows STEPS=1000 FIRST=1)
	ROTA_CHAOS_STEPS=$(or $(STEPS),10000) ROTA_CHAOS_FIRST_SEED=$(or $(FIRST),1) cargo test --locked -p rota-cli --test processes -- \
		chaos::workflows --nocapture

compat: ## Let this version and earlier ones work together (make compat REVISION=dc61eb4), built from the history
	@scripts/compat $(REVISION)

transfers: ## Carry artifacts of 1 GiB up and down over a killed control plane and an object store that was away (make transfers MIB=4096)
	ROTA_TEST_TRANSFER_MIB=$(or $(MIB),1024) cargo test --locked -p rota-cli --test processes -- transfers:: --nocapture

disk: ## Let ten agents work on a repository of 1 GiB, and 200 attempts one after another leave nothing (make disk MIB=4096 ATTEMPTS=1000)
	ROTA_TEST_REPOSITORY_MIB=$(or $(MIB),1024) ROTA_TEST_ATTEMPTS=$(or $(ATTEMPTS),200) cargo test --locked -p rota-cli --test processes -- repositories::disk --nocapture

test-gitea: ## Deliver to a real Gitea, which scripts/gitea builds from Go modules first: about ten minutes, once
	ROTA_TEST_GITEA=$$(scripts/gitea) cargo test --locked -p rota-cli --test processes -- repositories::real_forge --ignored

http-clients: ## Make a Python and a TypeScript client from the OpenAPI document, and use each on a `rota dev`
	@scripts/http-clients

http-fuzz: ## Send thousands of requests generated from the OpenAPI document to the HTTP API (make http-fuzz EXAMPLES=1000)
	@scripts/http-fuzz $(EXAMPLES)

coverage: ## Run the tests with coverage and print the covered share of lines per crate; needs LLVM's tools
	@scripts/coverage $(TESTS)

lint: ## Check format, text, scripts, protos, dependencies, lints, directions between crates and generated files
	@cargo fmt --all --check
	scripts/lint
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo xtask check
	cargo xtask docs --check

words: ## Print how often each crate uses words that docs/dev/style.md avoids, and the committed bounds
	@scripts/words-check --table

fmt: ## Format the code
	@cargo fmt --all

docs: ## Write the generated files: docs/reference, docs/state-machine.md and crds
	@cargo xtask docs
	cargo xtask crds
	ROTA_BLESS=1 cargo test --quiet --locked --package rota-core --test it table

bench: ## Measure this machine, built without LTO, as for docs/performance.md (options: make bench BENCH="load --help")
	@cargo run --profile bench-fast --locked --package rota-bench --bin rota-bench -- $(or $(BENCH),dispatch)

bench-release: ## Measure this machine as released, with LTO
	@cargo run --release --locked --package rota-bench --bin rota-bench -- $(or $(BENCH),dispatch)

instructions: ## Count the instructions per task with Callgrind, and compare them with the committed counts
	@scripts/instructions

bench-peers: ## Measure comparable systems, and Rota if ROTA_BIN names a release build; long (some of them in turn: make bench-peers PEER="awa rota-postgres" BENCH="--rounds 3")
	@bench/peers/run $(or $(PEER),all) $(BENCH)

charts-check: ## Check the charts: values, rights, pod security, Kubernetes 1.30 to 1.34; needs Go, builds helm with it if missing
	@scripts/charts-check

observability-check: ## Check alerts, dashboards and the example stack; needs promtool
	@scripts/observability-check

sbom: ## Write the software bill of materials of rota (CycloneDX)
	@scripts/sbom

advisories: ## Check dependencies for known vulnerabilities; downloads the database of RustSec from GitHub
	@PATH="$$(scripts/tools):$$PATH" cargo deny --locked check advisories

images: ## Build the images rota:dev and rota-worker:dev without a container engine
	@scripts/image

e2e: ## Run the core end-to-end tests and one more group on a real cluster, started and stopped (others: make e2e E2E="resilience")
	@scripts/e2e $(or $(E2E),--ci)

e2e-full: ## Run all end-to-end tests (on your cluster: make e2e-full KUBECONFIG=file)
	@scripts/e2e

e2e-at-rest: ## Let a real cluster hold 10,000 tasks and 1,000 agents, and measure what they cost at rest (make e2e-at-rest TASKS=2000 AGENTS=200)
	ROTA_E2E_TASKS=$(or $(TASKS),10000) ROTA_E2E_AGENTS=$(or $(AGENTS),1000) scripts/e2e workloads::at_rest

bench-k8s: ## Measure tasks on a real cluster, compared with a Job for each task (your cluster: KUBECONFIG=file)
	@scripts/e2e --bench

cluster-up: ## Start a real Kubernetes cluster of one node; needs root, Go and Linux (tests/cluster)
	@tests/cluster/cluster up

cluster-down: ## Stop that cluster and remove all of it
	@tests/cluster/cluster down

cluster-test: ## Test the cluster program itself, next to a cluster that may be up (without one: make cluster-test TESTS=-short)
	@cd tests/cluster && CGO_ENABLED=0 go vet . && CGO_ENABLED=0 go test -count=1 -timeout=40m $(TESTS) .

clean: ## Remove everything that was compiled
	@cargo clean
