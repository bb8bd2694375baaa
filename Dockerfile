# The server as an image, and nothing else: no torch, no model_export, no compiler, no models.
#
#   docker build --target cpu --tag foldserve:cpu .     ONNX Runtime for the CPU; also what a plain `docker build .` makes
#   docker build --target gpu --tag foldserve:gpu .     with CUDA and cuDNN from PyPI; run it with --gpus all
#
# The runtime's wheels stand in a layer of their own, below service/: an edit to the service moves kilobytes, not gigabytes.
ARG PYTHON=3.11

FROM python:${PYTHON}-slim-bookworm AS build
WORKDIR /build
# No pip in the environment: it is installed into from outside, and the server never needs it.
RUN python -m venv --without-pip /venv
# Without service/ this is foldserve's name, version and dependencies: they change rarely.
COPY LICENSE constraints.txt pyproject.toml ./

# More of pyproject.toml's extras, such as --build-arg EXTRAS=,grpc,otel
ARG EXTRAS=

FROM build AS build-cpu
RUN pip --python /venv/bin/python install --no-cache-dir --constraint constraints.txt ".[cpu${EXTRAS}]"

FROM build AS build-gpu
RUN pip --python /venv/bin/python install --no-cache-dir --constraint constraints.txt ".[gpu${EXTRAS}]"

FROM build AS code
COPY service /app/service
# A server without write access can not keep its bytecode, so it comes with it.
RUN python -m compileall -q --invalidation-mode unchecked-hash /app/service

FROM python:${PYTHON}-slim-bookworm AS base
# ONNX Runtime would send Microsoft the model's name and hashes, and how it is used: from 1.29 on that is its default on Linux.
ENV ORT_DISABLE_TELEMETRY=1
ENV PATH=/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    FOLDSERVE_HOST=0.0.0.0 \
    FOLDSERVE_PORT=8000 \
    FOLDSERVE_MODELS=/models
WORKDIR /app
# A number, so that Kubernetes can tell that it is not root.
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
# http.client, as urllib would ask a proxy of the environment.
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 CMD ["python", "-c", "\
import http.client, os, sys; \
server = http.client.HTTPConnection('127.0.0.1', int(os.environ['FOLDSERVE_PORT']), timeout=2); \
server.request('GET', '/health/ready'); \
sys.exit(server.getresponse().status != 200)"]
ENTRYPOINT ["python", "-m", "service"]

FROM base AS gpu
# What the NVIDIA container runtime gives to this image: every GPU, and of the driver what computing needs.
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=build-gpu /venv /venv
COPY --from=code /app /app
RUN ["python", "-c", "\
import importlib.metadata, service.__main__; \
names = {distribution.name for distribution in importlib.metadata.distributions()}; \
assert names & {'onnxruntime', 'onnxruntime-gpu', 'torch'} == {'onnxruntime-gpu'}, names"]

# The last stage is the default one. It asks for the CPU, so it does not complain that there is no GPU.
FROM base AS cpu
ENV FOLDSERVE_DEVICE=cpu
COPY --from=build-cpu /venv /venv
COPY --from=code /app /app
RUN ["python", "-c", "\
import importlib.metadata, service.__main__; \
names = {distribution.name for distribution in importlib.metadata.distributions()}; \
assert names & {'onnxruntime', 'onnxruntime-gpu', 'torch'} == {'onnxruntime'}, names"]
