# The commands people use. Each runs a file of scripts/, which continuous integration runs too.
.PHONY: setup demo test check verify bench stubs

setup:          ## make .venv with exact pins
	scripts/setup

demo: setup     ## the whole system on the example catalogue, in one terminal
	.venv/bin/zhiyin demo $(DEMO_ARGS)

test:           ## the test suite
	scripts/test

check:          ## format, lint, types, protos, stubs, documents
	scripts/check

verify:         ## the long suites
	scripts/verify

bench: setup    ## measure the whole path
	.venv/bin/python -m benchmarks run end_to_end

stubs: setup    ## generated/ from protos/
	scripts/generate_stubs
