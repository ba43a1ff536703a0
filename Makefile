# `make` lists the goals. Commands of more than one line are in tools/.

# The interpreter itself, because pyenv's `python3` would put other folders before .tools/sam/bin in PATH, and the
# `python3` of a virtual environment can't create that environment again.
PYTHON := $(shell python3 -c 'import sys; print(sys.executable)')
ARCH := $(if $(filter aarch64 arm64,$(shell uname -m)),arm64,x86_64)
KIND := temporary
TRIGGER := schedule
EVENT := events/schedule.json
FUZZ_SECONDS := 30
# Empty here, so that the environment sets none of them: a variable goes after `make`.
T :=
FORCE :=
JSON :=
DRY_RUN :=
REACTIVATE :=
API_KEY :=
YES :=
LOCAL :=
TARGETS :=
PROJECT :=
END_TO_END :=
WHAT :=
ARGS :=
ORIGIN_OF_STACK := $(origin STACK)
STACK :=

ifeq ($(PYTHON),)
$(error Python 3.11 or newer was not found as python3. Install it (Debian and Ubuntu: sudo apt-get install python3 \
  python3-venv; Fedora and Amazon Linux: sudo dnf install python3.11) or name it: make PYTHON=/path/to/python3)
endif
quote = '$(subst ','\'',$1)'
GIVEN := $(foreach name,$(.VARIABLES),$(if $(filter command,$(origin $(name))),$(name)))
PROBLEM := $(shell $(PYTHON) tools/variables.py '$(MAKECMDGOALS)' '$(filter-out MAKEFLAGS -*-%,$(GIVEN))' \
  '$(ORIGIN_OF_STACK)' \
  $(foreach name,KIND TRIGGER ARCH END_TO_END FORCE JSON DRY_RUN REACTIVATE API_KEY YES LOCAL,$(call quote,$(name)=$($(name)))) 2>&1)
ifeq ($(PROBLEM),)
PROBLEM := $(shell $(PYTHON) tools/prerequisites.py '$(MAKECMDGOALS)')
endif
ifneq ($(PROBLEM),)
$(error $(PROBLEM))
endif

TOOLS := .tools/sam/installed
LOCAL_AWS := .tools/ministack/installed
# Only where its library can be installed: see tools/terraform.in.
TERRAFORM := $(if $(filter x86_64,$(shell uname -m)),$(shell \
  getconf GNU_LIBC_VERSION | awk '$$2 >= 2.35 { print ".tools/terraform/installed" }'))
BUILT := .aws-sam/build/template.yaml
WITH_TOOLS := @.tools/sam/bin/python
WITH_LOCAL_AWS := @.tools/ministack/bin/python

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help run status doctor inventory rotate rollback revoke break mend stop test test-fast test-independent test-fleet lint build invoke deploy \
  release advisories bench fuzz mutants sbom reproducible docs pictures lock clean

help:
	@echo "make GOAL, where GOAL is one of"
	@awk -F ':.*## ' '/^##@ / { printf "\n%s\n", substr($$0, 5) } \
	  /^[a-z-]+:.*## / { printf "  %-16s  %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

##@ Try it, without an AWS account. KIND is temporary, access_key, short_term_api_key or long_term_api_key.
run: ## Deploy to a local AWS, rotate KIND (temporary) by TRIGGER (schedule or rotation); PROJECT, END_TO_END=true
	@$(PYTHON) tools/try_it.py $(KIND) $(TRIGGER) $(call quote,$(PROJECT)) $(if $(END_TO_END),end_to_end)
break: $(LOCAL_AWS) ## Break WHAT (trust, bedrock, ai_secret or assume_role) in what `make run` left running
	$(WITH_LOCAL_AWS) tools/operate.py break $(call quote,$(WHAT))
mend: $(LOCAL_AWS) ## Mend what `make break` broke
	$(WITH_LOCAL_AWS) tools/operate.py mend
stop: ## Stop what `make run` left running or is starting
	@$(PYTHON) tools/stop.py

##@ Install it in your AWS account
deploy: $(if $(LOCAL),$(TOOLS) .tools/awscli/installed,release) ## Deploy to your AWS account (LOCAL=true: the local one); ARGS are options of deploy.py
	$(if $(LOCAL),$(WITH_TOOLS) tools/deploy_locally.py $(ARCH),@$(PYTHON) deploy.py) $(ARGS)
release: $(BUILT) ## Write dist/: the function's zip file, a plain template, deploy.py, an SBOM and checksums
	$(WITH_TOOLS) tools/release.py $(ARCH)

##@ Operate it: the deployed STACK, or else what `make run` left running. JSON=true prints the answer as JSON.
status: $(LOCAL_AWS) ## Show TARGETS (a,b; default: all)
	$(WITH_LOCAL_AWS) tools/operate.py status $(call quote,$(STACK)) $(call quote,$(TARGETS)) $(if $(JSON),json)
doctor: $(LOCAL_AWS) ## Check everything that a rotation of TARGETS needs
	$(WITH_LOCAL_AWS) tools/operate.py doctor $(call quote,$(STACK)) $(call quote,$(TARGETS)) $(if $(JSON),json)
inventory: $(LOCAL_AWS) ## Show every Bedrock credential in Braintrust, and what is wrong
	$(WITH_LOCAL_AWS) tools/operate.py inventory $(call quote,$(STACK)) $(if $(JSON),json)
rotate: $(LOCAL_AWS) ## Rotate TARGETS now; with FORCE=true, also those that are not due; DRY_RUN=true only tells
	$(WITH_LOCAL_AWS) tools/operate.py rotate $(call quote,$(STACK)) $(call quote,$(TARGETS)) \
	  $(if $(FORCE),force) $(if $(DRY_RUN),dry_run) $(if $(JSON),json)
rollback: $(LOCAL_AWS) ## Restore the previous credentials of TARGETS; also DRY_RUN=true, REACTIVATE=true
	$(WITH_LOCAL_AWS) tools/operate.py rollback $(call quote,$(STACK)) $(call quote,$(TARGETS)) \
	  $(if $(DRY_RUN),dry_run) $(if $(REACTIVATE),reactivate) $(if $(JSON),json)
revoke: $(LOCAL_AWS) ## End leaked credentials of TARGETS; asks first, unless YES=true; also DRY_RUN, FORCE, API_KEY=true
	$(WITH_LOCAL_AWS) tools/operate.py revoke $(call quote,$(STACK)) $(call quote,$(TARGETS)) \
	  $(if $(DRY_RUN),dry_run) $(if $(FORCE),force) $(if $(API_KEY),api_key) $(if $(YES),yes) \
	  $(if $(JSON),json)

##@ Change it
test: $(if $(T),,lint) $(BUILT) $(LOCAL_AWS) .tools/awscli/installed ## Run the lints and all tests; with T='a or b', only those
	$(WITH_TOOLS) tools/run_tests.py $(if $(T),matching $(call quote,$(T)),all)
test-fast: lint $(LOCAL_AWS) ## Run the lints, the Rust tests, and a rotation of each kind of credentials
	$(WITH_TOOLS) tools/run_tests.py fast
test-independent: $(BUILT) .tools/moto/installed ## Rotate on moto, an independent AWS, and say what can't be tested on it
	$(WITH_TOOLS) tools/run_tests.py independent
test-fleet: $(BUILT) $(LOCAL_AWS) ## Rotate 3,000 targets in 1,000 accounts with the state machine of fleet.yaml
	$(WITH_TOOLS) tools/run_tests.py fleet
lint: $(TOOLS) .tools/checkov/installed .tools/lint/installed $(TERRAFORM) ## Check format, lints, documents, licenses, templates, workflows
	$(WITH_TOOLS) tools/lint.py
build: $(BUILT) ## Build the function for ARCH (this machine's), if its sources have changed
invoke: $(BUILT) $(LOCAL_AWS) ## Send EVENT (events/schedule.json) to the function on this machine
	$(WITH_TOOLS) tools/invoke.py $(call quote,$(EVENT))
advisories: $(TOOLS) ## Check the crates for known vulnerabilities, in RustSec's database on GitHub
	$(WITH_TOOLS) tools/step.py "cargo deny" -- cargo deny --locked check advisories
bench: $(BUILT) $(LOCAL_AWS) ## Measure the function, and compare it with one in Python and one that does nothing
	$(WITH_TOOLS) bench/bench.py $(ARCH)
pictures: $(BUILT) $(LOCAL_AWS) ## Draw docs/pictures from the template and from runs on the local stack
	$(WITH_TOOLS) tools/draw.py
fuzz: .tools/cargo/bin/cargo-fuzz ## Fuzz everything that reads input, for FUZZ_SECONDS (30) each
	@$(PYTHON) tools/fuzz.py $(call quote,$(FUZZ_SECONDS))
mutants: $(LOCAL_AWS) $(TOOLS) .tools/cargo/bin/cargo-mutants ## Check that tests notice code changes; takes hours
	@$(PYTHON) tools/mutants.py
sbom: ## Print the list of everything in the function (CycloneDX)
	@$(PYTHON) tools/sbom.py
reproducible: $(TOOLS) ## Build the current commit twice, in two folders, and compare the results
	@$(PYTHON) tools/reproducible.py $(ARCH)
docs: $(TOOLS) ## Write docs/parameters.md from the templates
	$(WITH_TOOLS) tools/parameters_page.py
lock: ## Update tools/*.lock to the newest versions that tools/*.in allow
	@$(PYTHON) tools/lock.py
clean: ## Stop what `make run` left running, and remove everything that was built and installed
	@$(PYTHON) tools/stop.py >/dev/null
	@rm -rf .aws-sam .tools dist target .pytest_cache
	@find tests tools bench -name __pycache__ -type d -prune -exec rm -rf {} +

.tools/%/installed: tools/%.lock
	@$(PYTHON) tools/install_python.py $* $(if $(JSON),>&2)
.tools/cargo/bin/%:
	@$(PYTHON) tools/install_cargo.py $*

# The folders are among the sources because deleting a file changes only its folder's modification time.
$(BUILT): .aws-sam/$(ARCH) template.yaml Cargo.toml Cargo.lock $(shell find src -type d -o -name '*.rs') | $(TOOLS)
	@$(PYTHON) tools/build.py $(ARCH)
# A build for another architecture is not up to date for this one.
.aws-sam/$(ARCH):
	@mkdir -p .aws-sam && rm -f .aws-sam/x86_64 .aws-sam/arm64 && touch $@
