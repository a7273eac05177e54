# Every task of the book; `make` alone lists them. What a caller may set:
#
#   PYTHON=/path/python  use that environment; without it, `.venv` is made and filled
#   OFFLINE=.whl         no network: put these wheels (of `make wheelhouse`) before the
#                        packages that PYTHON, or else python3, has
#   ONLY=parallel-add    record only the experiments whose names start with this;
#                        with times, the chapters of these names
#   ARGS='-k mask'       more arguments for pytest, or for a tool
#   JOBS, WORKERS        processes that build, processes that test
#   SHARE=1              try all cases on each Triton of test-versions, not one in five

TRITONS ?= 3.6.0 3.7.1 3.9.0
WORKERS ?= 2
SHARE ?= 5

# What no version of Triton changes: the book's own machinery, and made-up clocks.
ALIKE := book* elsewhere* front* house* layout* measure_[bcp]* records* resources* \
         $(patsubst tools/%.py,tools_%,$(wildcard tools/*.py)) tools_epub tools_pdf \
         *_experiments

HARDWARE := $(if $(filter-out 0,$(shell nvidia-smi -L 2>/dev/null | grep -c GPU)),gpu,cpu)
# On a GPU one chapter at a time: a second one's kernels would disturb what is timed.
JOBS ?= $(if $(filter gpu,$(HARDWARE)),1,auto)

ifdef OFFLINE
  PY := $(or $(PYTHON),python3)
  READY := _build/site-packages/.ready
  export PYTHONPATH := $(CURDIR)/_build/site-packages:$(CURDIR)/code$(if $(PYTHONPATH),:$(PYTHONPATH))
else ifdef PYTHON
  PY := $(PYTHON)
  READY :=
  export PYTHONPATH := $(CURDIR)/code$(if $(PYTHONPATH),:$(PYTHONPATH))
else
  PY := .venv/bin/python
  READY := .venv/ready-$(HARDWARE)
  export PYTHONPATH :=
endif

PIP = $(PY) -m pip --disable-pip-version-check
PYTEST = $(PY) -m pytest --quiet --numprocesses $(WORKERS) --dist loadgroup \
    --timeout 300 $(ARGS)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help html html-live epub pdf record confirm test times tune verify test-versions check-site speed \
        lint serve wheelhouse browser-runtime clean

help: ## say what each target does
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "%-14s %s\n", $$1, $$2}' \
	    $(firstword $(MAKEFILE_LIST))

html: $(READY) ## build the book into _build/html; warnings are errors
	@$(PY) tools/build_book.py --jobs $(JOBS)

html-live: $(READY) ## build it with every chapter run and every figure measured again
	@$(PY) tools/build_book.py --jobs $(JOBS) --live

epub: html ## bind it as _build/thinking-in-tiles.epub; needs Chromium for the formulas
	@$(PY) tools/build_epub.py --jobs $(JOBS)

pdf: html ## print it as _build/thinking-in-tiles.pdf; needs Chromium
	@$(PY) tools/build_pdf.py

record: $(READY) ## on a GPU: measure [ONLY=prefix] and write the committed records
	@$(PY) tools/compile_ahead.py '$(ONLY)' --workers $$(nproc)
	@$(PY) -m tilebook.measure --record $(if $(ONLY),--only $(ONLY))

confirm: $(READY) ## on a GPU: after a change that changes no time, measure a sample again
	@$(PY) -m tilebook.measure --confirm $(if $(ONLY),--only $(ONLY))

test: $(READY) ## run the tests, all but those of the built pages
	@$(PYTEST) --ignore tests/site

tune: $(READY) ## on a GPU: rank the ways to launch a chapter's kernels, ARGS=tilebook.NAME.tuning
	@$(PY) tools/tune.py $(ARGS)

times: $(READY) ## execute chapters, [ONLY=name] of them, and print what takes how long
	@$(PY) tools/time_cells.py $(ONLY) $(ARGS)

verify: $(READY) ## on a GPU: tests and compute-sanitizer, noted beside the records
	@$(PY) tools/verify.py -- $(ARGS)

test-versions: $(READY) $(TRITONS:%=.venv/triton-%/.ready) ## run them on each Triton of TRITONS
	@for version in $(TRITONS); do \
	    export PYTHONPATH="$(CURDIR)/.venv/triton-$$version$(if $(PYTHONPATH),:$(PYTHONPATH))"; \
	    echo "Triton $$version:"; \
	    $(PY) -c "import triton; assert triton.__version__ == '$$version', triton" && \
	    $(PYTEST) $(if $(filter 1,$(SHARE)),,-m 'not slow') --ignore tests/site $(ALIKE:%=--ignore-glob='*/test_%.py') \
	        --share $(SHARE) || exit 1; \
	done

check-site: $(READY) ## read the built pages in a browser: links, search, menus, WCAG
	@test -e _build/html/index.html || { echo 'no pages yet: run make html' >&2; exit 1; }
	@$(PYTEST) tests/site

speed: $(READY) ## load the built pages in a browser and time it; ARGS='--build' times builds
	@$(PY) tools/site_speed.py $(ARGS)

lint: $(READY) ## check style and spelling
	@$(PY) -m ruff format --check .
	@$(PY) -m ruff check .
	@$(PY) -m codespell_lib

serve: $(READY) ## show the book in a browser and build again at each save
	@mkdir -p _build/serve
	@$(PY) -m sphinx_autobuild -j $(JOBS) -d _build/serve/doctrees . _build/serve/html \
	    --re-ignore '^$(CURDIR)/([.]|_build/|book/api/|tests/)|/__pycache__/'

wheelhouse: $(READY) ## collect in .whl what a GPU machine without network lacks
	@$(PY) tools/wheelhouse.py .whl

browser-runtime: $(READY) ## fetch what runs kernels in a page into .runtime, 17 MB
	@$(PY) tools/browser_runtime.py $(ARGS)

clean: ## remove what was built; .venv, .whl and .runtime stay
	@rm -rf _build book/api/*.md .pytest_cache .ruff_cache .hypothesis

.venv/ready-%: $(wildcard requirements/*.txt) pyproject.toml
	@echo 'Installing into .venv, once; without a download cache this takes minutes ...'
	@rm -f .venv/ready-*
	@for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	    $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && \
	    exec $$python -m venv .venv; \
	done; echo 'make: needs Python 3.11 or newer' >&2; exit 1
	@$(PIP) install -qq --requirement requirements/$*.txt
	@$(PIP) install -qq --no-deps --no-build-isolation --editable .
	@test $* = cpu || $(PIP) install -qq --no-deps --requirement requirements/peers.txt
	@touch $@

.venv/triton-%/.ready:
	@rm -rf $(@D)
	@$(PIP) install -qq --no-deps --target $(@D) triton==$*
	@touch $@

_build/site-packages/.ready: $(wildcard $(OFFLINE)/*.whl)
	@test -n '$^' || { echo 'make: no wheels in $(OFFLINE)' >&2; exit 1; }
	@rm -rf $(@D)
	@$(PIP) install -qq --no-index --no-deps --target $(@D) $^
	@touch $@
