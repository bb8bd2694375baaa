# One verb each. `make demo` and `make test` set everything up on their own: a .venv here, versions from constraints.txt.
#
# RUNTIME is the extra that brings ONNX Runtime, one of
#   gpu               onnxruntime-gpu with CUDA 13 and cuDNN 9 from PyPI (some 2 GB): where an NVIDIA driver is
#   gpu-system-cuda   onnxruntime-gpu alone: Linux on x86-64 without a driver, where those 2 GB could not be loaded anyway
#   cpu               onnxruntime: macOS, Arm
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
RUNTIME ?= $(shell case "$$(uname -s)-$$(uname -m)" in \
	(Linux-x86_64) if command -v nvidia-smi >/dev/null 2>&1; then echo gpu; else echo gpu-system-cuda; fi ;; \
	(*) echo cpu ;; esac)
PIP_INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
INSTALLED = $(VENV)/.installed-$(RUNTIME)
IN_PARALLEL = -n auto --maxprocesses 4 --dist loadfile
NETWORKS = $(VENV)/.installed-networks
PEERS = $(VENV)/.installed-peers

.PHONY: demo serve test lint format test-slow test-service bench bench-peers bench-exact bench-fold bench-bank bench-gpu bench-precision soak clients audit image install clean

demo: $(INSTALLED)  ## train, freeze, export, fold, verify, serve and predict, on scikit-learn's digits
	@$(BIN)/python -m model_export demo

serve: $(INSTALLED)  ## serve the bundles in models/
	@$(BIN)/python -m service --models models

test: lint $(NETWORKS)  ## all tests but the slow ones
	$(BIN)/python -m pytest $(IN_PARALLEL) -m "not slow"

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/hadolint Dockerfile
	$(BIN)/python -m pip check

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test-slow: $(INSTALLED) $(NETWORKS)  ## Fashion-MNIST to its accuracy (needs Debian's dataset-fashion-mnist), several minutes
	$(BIN)/python -m pytest -m slow

test-service:  ## the service's tests where torch is not installed
	$(MAKE) VENV=.venv-service EXTRAS=test-service .venv-service/.installed-$(RUNTIME)
	.venv-service/bin/python -m pytest $(IN_PARALLEL) tests/service -m "not slow"

bench-fold: $(INSTALLED)  ## how fast the fold is: 50 to 5,000 nodes, ResNet-50 with all checks, start-up
	$(BIN)/python -m benchmarks.fold_speed

bench-exact: $(INSTALLED)  ## what exact statistics cost, in multiples of one forward pass
	$(BIN)/python -m benchmarks.exact

bench-bank: $(PEERS)  ## foldserve beside onnxslim, onnxsim, onnxoptimizer, onnxscript and ONNX Runtime on the bank
	$(BIN)/python -m benchmarks.bank

bench-train: $(INSTALLED)  ## training beside a loop by hand, on Fashion-MNIST (needs Debian's dataset-fashion-mnist)
	$(BIN)/python -m benchmarks.training

bench-gpu: $(INSTALLED)  ## ways over a GPU: ONNX Runtime, TensorRT, PyTorch, with BatchNorm and folded; the whole service
	$(BIN)/python -m benchmarks.gpu

bench-precision: $(INSTALLED)  ## what fp16 and int8 cost and save: accuracy, size, time of a run (needs Debian's dataset-fashion-mnist)
	$(BIN)/python -m benchmarks.precision

bench: $(INSTALLED)  ## requests a second and latency, beside a no-op server and the tutorial's FastAPI (needs wrk)
	$(BIN)/python -m benchmarks.serving

bench-peers: $(INSTALLED)  ## the same beside LitServe, BentoML, MLServer and mosec, each in .venv-peers/ (needs wrk)
	$(BIN)/python -m benchmarks.serving --peers --seconds 4

soak: $(INSTALLED)  ## minutes of load on several protocols, with reloads: memory, failed requests
	$(BIN)/python -m benchmarks.soak

clients: $(INSTALLED)  ## KServe's and MLServer's clients, each in an environment of its own, for their tests
	$(BIN)/python -m tests.clients.environments

audit: $(INSTALLED)  ## known vulnerabilities of the pinned packages; needs a network, so it is no part of `make test`
	$(PIP_INSTALL) pip-audit
	$(BIN)/python -m pip_audit --requirement constraints.txt --no-deps --disable-pip

image:  ## the slim CPU image; `make image TARGET=gpu` for the other
	docker build --target $(or $(TARGET),cpu) --tag foldserve:$(or $(TARGET),cpu) .

install: $(INSTALLED)  ## only the set-up

EXTRAS ?= train,dev
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	@echo "installing foldserve[$(RUNTIME),$(EXTRAS)] into $(VENV): a minute or two"
	@rm -f $(VENV)/.installed-*
	@$(BIN)/python -m pip uninstall --quiet --yes onnxruntime onnxruntime-gpu 2>/dev/null || true
	$(PIP_INSTALL) --editable ".[$(RUNTIME),$(EXTRAS)]"
	@touch $@

$(NETWORKS) $(PEERS): $(VENV)/.installed-%: $(INSTALLED)  # beside the rest: what the fold is tested on, and compared with
	@echo "installing foldserve[$*] into $(VENV)"
	$(PIP_INSTALL) --editable ".[$(RUNTIME),$*]"
	@touch $@

clean:
	rm -rf .venv .venv-service .venv-peers .mypy_cache .pytest_cache .ruff_cache .hypothesis build *.egg-info
