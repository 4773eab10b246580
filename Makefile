# A thin cover over `python -m crossexplain`; `make help` lists the targets.
PROFILE ?= embedded
CHAPTERS ?=
JOBS ?= 2
VENV ?= .venv
PORT ?= 8000
SIZE ?=
RUN = $(VENV)/bin/python -m
# A file that a reader uploads comes as one message; by default the server drops one above 10 MB without a word.
LAB = --ServerApp.tornado_settings="{'websocket_max_message_size': 200000000}"

.DEFAULT_GOAL := help
.PHONY: help env book pdf kit test lab serve bench lint clean

help:  ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | sort
	@echo "variables: PROFILE=embedded|full  CHAPTERS=01_...,02_...  JOBS=2  PYTHON=python3.12  PORT=8000  SIZE=small"

env:  ## make the environment in .venv from requirements.lock, if it is not there
	@sh tools/environment.sh $(VENV)

book: env  ## run the chapters that changed, build the pages, say where to open them
	@$(RUN) crossexplain book --profile $(PROFILE) --jobs $(JOBS) $(if $(CHAPTERS),--chapters $(CHAPTERS))

pdf: env  ## print the book that `make book` left as one PDF
	@$(RUN) crossexplain pdf --profile $(PROFILE) $(if $(CHAPTERS),--chapters $(CHAPTERS))

kit: env  ## PDF, slides, handouts, notebooks and assignments as one archive, from the book that `make book` left
	@$(RUN) crossexplain kit --profile $(PROFILE) $(if $(CHAPTERS),--chapters $(CHAPTERS))

test: env  ## all tests: units, the book (what `make book` left, else a small one), its pages in a browser
	@CROSSEXPLAIN_TEST_SIZE=$(SIZE) $(RUN) pytest -n 2 --no-loadscope-reorder

lab: env  ## open the notebooks in JupyterLab
	@$(RUN) jupyterlab $(LAB) notebooks

serve: book  ## build, then serve the pages on this machine only
	@echo "The book is at http://127.0.0.1:$(PORT) until you press Ctrl-C"
	@$(RUN) http.server $(PORT) --bind 127.0.0.1 --directory _build/$(PROFILE)/html

bench: env  ## measure everything that data/results/figures.csv holds
	@$(RUN) crossexplain bench all

lint: env  ## strip outputs from the notebooks, then check the code
	@$(VENV)/bin/nbstripout --keep-id $(wildcard notebooks/*.ipynb)
	@$(RUN) ruff check .

clean:  ## remove what was built; the environment stays
	@rm -rf _build dist .pytest_cache .ruff_cache .hypothesis
