# `make` alone lists what there is. Needs Rust, Python 3.11 or newer, and a C compiler; the other tools are
# installed into .tools/ at the versions and hashes of tools/*.lock.

# The interpreter itself, found before PATH gets .tools/sam/bin: a virtual environment can't be made anew by its own
# Python, and pyenv's stand-in for python3 would put its folders before .tools/sam/bin again.
PYTHON := $(shell python3 -c 'import sys; print(sys.executable)')
ifeq ($(PYTHON),)
$(error Python 3.11 or newer is needed, as python3 or as make PYTHON=/path/of/python3)
endif
EVENT ?= events/schedule.json
KIND := temporary
TRIGGER := schedule
KINDS := temporary access_key short_term_api_key long_term_api_key
TRIGGERS := schedule rotation
ifeq ($(filter $(KIND),$(KINDS)),)
$(error KIND=$(KIND): accepted are $(KINDS))
endif
ifeq ($(filter $(TRIGGER),$(TRIGGERS)),)
$(error TRIGGER=$(TRIGGER): accepted are $(TRIGGERS))
endif
# This machine's own, as the local stack runs what is built. Another one needs its Rust target.
ARCH := $(if $(filter aarch64 arm64,$(shell uname -m)),arm64,x86_64)
ARCHS := x86_64 arm64
ifeq ($(filter $(ARCH),$(ARCHS)),)
$(error ARCH=$(ARCH): accepted are $(ARCHS))
endif
# What is misspelt, or a parameter of the template, would be left out without a word.
TAKEN := ARCH PYTHON $(if $(filter deploy,$(MAKECMDGOALS)),ARGS,KIND TRIGGER STACK TARGETS FORCE WHAT EVENT FUZZ_SECONDS)
GIVEN := $(foreach name,$(.VARIABLES),$(if $(filter command,$(origin $(name))),$(name)))
UNKNOWN := $(filter-out $(TAKEN) MAKEFLAGS -*-%,$(GIVEN))
ifneq ($(strip $(UNKNOWN)),)
$(error make $(MAKECMDGOALS) does not take $(UNKNOWN), but $(TAKEN)$(if $(filter deploy,$(MAKECMDGOALS)),: \
  answer its questions and give ARGS='--parameter-overrides …'))
endif
ifneq ($(and $(filter rotate,$(MAKECMDGOALS)),$(filter-out true,$(FORCE))),)
$(error FORCE=$(FORCE): accepted is true)
endif
ifneq ($(and $(filter status doctor rotate rollback,$(MAKECMDGOALS)),$(filter environment,$(origin STACK))),)
$(error STACK goes after make: make $(MAKECMDGOALS) STACK=$(STACK))
endif
ifneq ($(and $(filter break stop,$(MAKECMDGOALS)),$(filter command,$(origin STACK))),)
$(error make $(MAKECMDGOALS) is for what `make run` left running)
endif

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help run status doctor rotate rollback break stop test build check invoke deploy bench fuzz mutants sbom reproducible lock clean

export PATH := $(CURDIR)/.tools/sam/bin:$(CURDIR)/.tools/cargo/bin:$(PATH)
# cargo, and the cargo-lambda that `sam build` starts, share one folder whatever the caller's settings are.
export CARGO_TARGET_DIR := $(CURDIR)/target
export SAM_CLI_TELEMETRY := 0

# Only `make deploy`, and the others where STACK names what was deployed, see the caller's AWS account.
ifneq ($(origin STACK),command line)
STACK :=
endif
ifeq ($(filter deploy,$(MAKECMDGOALS))$(STACK),)
unexport AWS_PROFILE AWS_DEFAULT_PROFILE AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN AWS_ENDPOINT_URL
export AWS_CONFIG_FILE := /dev/null
export AWS_SHARED_CREDENTIALS_FILE := /dev/null
export AWS_EC2_METADATA_DISABLED := true
export AWS_DEFAULT_REGION := us-east-1
endif

STEP := $(PYTHON) tools/step.py
TOOLS := .tools/sam/installed
LOCAL_AWS := .tools/ministack/installed
RULES := .tools/checkov/installed
BUILT := .aws-sam/build/template.yaml

help:
	@echo "make TARGET, where TARGET is one of"
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "KIND is one of $(KINDS); TRIGGER is one of $(TRIGGERS)."

run: $(BUILT) $(LOCAL_AWS) ## Deploy KIND (temporary) into a local AWS, rotate by TRIGGER (schedule), and show what happened
	@.tools/sam/bin/python tools/run.py $(KIND) $(TRIGGER)

status: $(TOOLS) ## Show each target of STACK, or of what `make run` left running
	@.tools/sam/bin/python tools/operate.py status "$(STACK)" ""

doctor: $(TOOLS) ## Try all that a rotation needs, of STACK or of what `make run` left running
	@.tools/sam/bin/python tools/operate.py doctor "$(STACK)" ""

rotate: $(TOOLS) ## Rotate TARGETS (all) now; with FORCE=true whatever their age
	@.tools/sam/bin/python tools/operate.py $(if $(filter true,$(FORCE)),force,rotate) "$(STACK)" "$(TARGETS)"

rollback: $(TOOLS) ## Go back to the previous credentials of TARGETS
	@.tools/sam/bin/python tools/operate.py rollback "$(STACK)" "$(TARGETS)"

break: $(TOOLS) ## Break WHAT (trust, bedrock, ai_secret) of what `make run` left running
	@.tools/sam/bin/python tools/operate.py break "" "$(WHAT)"

stop: $(TOOLS) ## End what `make run` left running
	@.tools/sam/bin/python tools/operate.py stop "" ""

test: check $(BUILT) $(LOCAL_AWS) ## Everything that `check` does, and all tests
	@$(STEP) --show 'test result' 'cargo test' -- cargo test --locked
	@.tools/sam/bin/python -m pytest tests

build: $(BUILT) ## Build the function with sam, if its sources changed

check: $(TOOLS) $(RULES) ## Format, lints, docs, licences and the templates
	@$(STEP) 'cargo fmt' -- cargo fmt --check
	@$(STEP) 'cargo clippy' -- cargo clippy --all-targets --locked -- -D warnings
	@RUSTDOCFLAGS=-Dwarnings $(STEP) 'cargo doc' -- cargo doc --no-deps --locked
	@$(STEP) 'cargo deny' -- cargo deny --locked check licenses bans sources
	@$(STEP) 'sam validate' -- sam validate --lint
	@$(STEP) 'cfn-lint' -- cfn-lint template.yaml bedrock-role.yaml
	@$(STEP) --show 'Passed checks' 'checkov' -- .tools/checkov/bin/checkov --framework cloudformation --compact \
	  --skip-download --file template.yaml bedrock-role.yaml

invoke: $(BUILT) $(LOCAL_AWS) ## Send EVENT (events/schedule.json) to the function under Lambda's emulator
	@.tools/sam/bin/python tools/invoke.py $(EVENT)

deploy: $(BUILT) ## Deploy to your AWS account, for ARCH (this machine's); asks for the parameters, or takes ARGS
	@sam deploy $(or $(ARGS),--guided)

bench: $(BUILT) $(LOCAL_AWS) ## Measure it, beside Python and beside nothing, into bench/RESULTS.md
	@env $(BUILD_ENV) .tools/sam/bin/python bench/bench.py

fuzz: .tools/cargo/bin/cargo-fuzz ## Fuzz what reads events, ai_secrets and targets, FUZZ_SECONDS (30) each
	@for target in event ai_secret targets; do mkdir -p fuzz/corpus/$$target; \
	  $(STEP) --show 'Done' "fuzz $$target" -- cargo fuzz run --sanitizer none $$target fuzz/corpus/$$target \
	    fuzz/seeds/$$target -- -max_total_time=$(FUZZ_SECONDS) || exit 1; \
	done

mutants: .tools/cargo/bin/cargo-mutants $(LOCAL_AWS) ## Change decisions and rotations, and see that a test notices
	@mkdir -p target/mutants
	@$(STEP) --show 'mutants tested' 'change the decisions' -- cargo mutants --output target/mutants/decisions \
	  $(DECISIONS:%=--file %) -- --lib
	@for part in $(ROTATIONS); do \
	  tests=$$(echo $${part#*:} | sed 's#[^,]*#tests/test_&.py#g; s/,/ /g'); part=$${part%%:*}; \
	  env MINISTACK=$(CURDIR)/$(dir $(LOCAL_AWS))bin/ministack BLACK_BOX="$$tests" \
	    $(STEP) --show 'mutants tested' "change $$part" -- cargo mutants --output target/mutants/$$(basename $$part .rs) \
	    --file $$part -- --test black_box -- --ignored || exit 1; \
	done

sbom: .tools/cargo/bin/cargo-cyclonedx ## Write target/sbom.cdx.json, the list of what is in the function (CycloneDX)
	@$(STEP) 'cargo cyclonedx' -- cargo cyclonedx --format json --spec-version 1.5 --override-filename sbom.cdx \
	  --target $(RUST_TARGET)
	@mv sbom.cdx.json target/ && echo target/sbom.cdx.json

reproducible: $(TOOLS) ## Build what is committed twice, in two folders, and compare
	@rm -rf target/reproducible-* && for copy in 1 2; do git clone -q . target/reproducible-$$copy; done
	@for copy in 1 2; do \
	  $(STEP) "build number $$copy" -- sh -c 'cd target/reproducible-$$0 && export CARGO_TARGET_DIR=$$PWD/target && \
	    env $(BUILD_ENV) cargo lambda build --release --bin bootstrap --locked' $$copy || exit 1; \
	done
	@sha256sum target/reproducible-?/target/lambda/bootstrap/bootstrap
	@cmp target/reproducible-?/target/lambda/bootstrap/bootstrap && echo 'the same'

lock: ## Resolve tools/*.in anew into tools/*.lock
	@$(STEP) 'install pip-tools' -- sh -c '$(PYTHON) -m venv --clear .tools/lock && .tools/lock/bin/pip install pip-tools==7.6.2'
	@for name in sam ministack checkov; do \
	  CUSTOM_COMPILE_COMMAND='make lock' $(STEP) "resolve $$name.in" -- env -u PIP_FIND_LINKS -u PIP_EXTRA_INDEX_URL \
	    .tools/lock/bin/pip-compile --upgrade --generate-hashes --allow-unsafe --strip-extras --no-emit-options \
	    --no-emit-index-url --no-emit-trusted-host --no-emit-find-links -o tools/$$name.lock tools/$$name.in || exit 1; \
	done

clean: ## Remove the build and the tools
	@rm -rf .aws-sam .tools target .pytest_cache
	@find tests tools bench -name __pycache__ -type d -prune -exec rm -rf {} +

# Tools that only some targets need, and that are built on this machine.
FUZZ_SECONDS := 30
DECISIONS := src/plan.rs src/braintrust/layout.rs 'src/config*.rs' 'src/config/*.rs' src/trigger.rs src/braintrust/pace.rs
# Each with the black-box tests that know it best.
ROTATIONS := src/rotation.rs:rotation,refusals,faults src/rotation/places.rs:rotation,faults,staged,steps \
  src/rotation/staged.rs:staged,steps src/rotation/retirement.rs:staged,steps,rollback src/rotation/hook.rs:steps \
  src/rotation/rollback.rs:rollback src/rotation/service_token.rs:api_key_rotation src/rotation/check.rs:check \
  src/rotation/status.rs:status
.tools/cargo/bin/cargo-fuzz: TOOL := cargo-fuzz@0.13.2
.tools/cargo/bin/cargo-mutants: TOOL := cargo-mutants@27.1.0
.tools/cargo/bin/cargo-cyclonedx: TOOL := cargo-cyclonedx@0.5.9
.tools/cargo/bin/%:
	@$(STEP) 'install $(TOOL)' -- cargo install --locked --root .tools/cargo $(TOOL)

# A virtual environment is made anew when its lock file changed. --no-deps: the lock names every package.
.tools/%/installed: tools/%.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=/path/of/python3")'
	@$(STEP) 'install $<' -- sh -c '$(PYTHON) -m venv --clear .tools/$* && .tools/$*/bin/pip install \
	  --disable-pip-version-check --require-hashes --no-deps --only-binary :all: -r $<'
	@touch $@

# The folders are among the sources because deleting a file changes only its folder's time.
# cargo-lambda runs first by itself, with the arguments that `sam build` gives it, because sam keeps cargo's output
# to itself until the end; sam then finds the work done.
# RUSTUP: cargo-lambda runs `rustup target list` and `add` where there is a program of that name. Cargo itself says
# what to do when the target is missing.
$(BUILT): .aws-sam/$(ARCH) template.yaml Cargo.toml Cargo.lock $(shell find src -type d -o -name '*.rs') | $(TOOLS)
	@$(STEP) 'build the function' -- env $(BUILD_ENV) cargo lambda build --release --bin bootstrap --locked
	@$(STEP) 'sam build' -- env $(BUILD_ENV) sam build
	@sed -i 's/^\( *- \)x86_64$$/\1$(ARCH)/' $@

# What was built for another architecture is built anew.
.aws-sam/$(ARCH):
	@mkdir -p .aws-sam && rm -f $(ARCHS:%=.aws-sam/%) && touch $@

RUST_TARGET := $(ARCH:arm64=aarch64)-unknown-linux-gnu
# The remapped paths are those that panics name: they would tell whose machine built it, and differ from one to another.
BUILD_ENV := RUSTUP=none CARGO_BUILD_TARGET=$(RUST_TARGET) \
  RUSTFLAGS=--remap-path-prefix=$(or $(CARGO_HOME),$(HOME)/.cargo)=/cargo
