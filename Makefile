# The face of every command: each target is one script, which also runs alone.
.DEFAULT_GOAL := help
.PHONY: help up test fast long lint mutate generate lock bench reliability soak

help: ## Show the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

up: ## Run the whole pipeline here (scripts/up)
	scripts/up

test: ## Run everything that CI runs (scripts/test)
	scripts/test

fast: ## Run the layers without services (scripts/test fast)
	scripts/test fast

long: ## Run everything at full length (scripts/test --long)
	scripts/test --long

mutate: ## Try small defects against the fast tests (scripts/mutate)
	scripts/mutate

lint: ## Check style, types and generated files (scripts/test lint)
	scripts/test lint

generate: ## Write every generated file (scripts/generate)
	scripts/generate

lock: ## Write the lock files (scripts/lock)
	scripts/lock

reliability: ## Run the tests of all faults and write docs/reliability.md (scripts/reliability)
	scripts/reliability

soak: ## Run everything for two hours with faults at random (scripts/soak)
	scripts/soak

bench: ## Measure everything and write docs/benchmarks.md (scripts/bench)
	scripts/bench
