# syntax is BuildKit's built-in dockerfile.v0 frontend: no remote frontend is pulled, so closed networks can build too.
#
#   docker buildx build --target operator -t inception-operator:0.1.0 .
#   docker buildx build --target trainer  -t inception-trainer:0.1.0 .
#
# A vendor's image with its own torch as base (torch is then not installed again):
#   docker buildx build --target trainer --build-arg BASE_IMAGE=vendor/pytorch:2.4 -t inception-trainer:0.1.0-vendor .
#
# Without a package index, from a folder of wheels (make wheels):
#   docker buildx build --target trainer --build-context wheels=.cache/wheels/trainer -t inception-trainer:0.1.0 .

ARG BASE_IMAGE=python:3.11-slim-bookworm
ARG OPERATOR_BASE_IMAGE=python:3.11-slim-bookworm

# Empty unless a named build context of the same name replaces it.
FROM scratch AS wheels

# hadolint ignore=DL3006
FROM ${OPERATOR_BASE_IMAGE} AS operator
SHELL ["/bin/sh", "-euc"]
COPY requirements/operator.txt /opt/inception/requirements/
RUN --mount=type=bind,from=wheels,target=/wheels \
    python3 -m venv /opt/venv; \
    set --; if ls /wheels/*.whl >/dev/null 2>&1; then set -- --no-index --find-links /wheels; fi; \
    /opt/venv/bin/pip install --no-cache-dir --require-hashes "$@" -r /opt/inception/requirements/operator.txt
COPY operator/inception_operator /opt/inception/inception_operator
RUN /opt/venv/bin/python -m compileall -q /opt/inception/inception_operator
# Libraries ask for the user's name, and the number that the pod runs as has none.
ENV PATH=/opt/venv/bin:$PATH PYTHONPATH=/opt/inception PYTHONUNBUFFERED=1 USER=inception
USER 10001:10001
ENTRYPOINT ["python3", "-m", "inception_operator"]
CMD ["run"]

# hadolint ignore=DL3006
FROM ${BASE_IMAGE} AS trainer
SHELL ["/bin/sh", "-euc"]
COPY requirements/numpy1.txt requirements/torch.txt requirements/trainer.txt /opt/inception/requirements/
# The base's own site-packages stay visible, so that a vendor's torch is found and kept. Before 2.3 it wants numpy 1.
RUN --mount=type=bind,from=wheels,target=/wheels \
    python3 -m venv --system-site-packages /opt/venv; \
    set --; if ls /wheels/*.whl >/dev/null 2>&1; then set -- --no-index --find-links /wheels; fi; \
    if ! TORCH_DEVICE_BACKEND_AUTOLOAD=0 /opt/venv/bin/python -c 'import torch' 2>/dev/null; then \
      /opt/venv/bin/pip install --no-cache-dir --require-hashes "$@" -r /opt/inception/requirements/torch.txt; \
    fi; \
    old='import sys, torch; sys.exit(tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 3))'; \
    if TORCH_DEVICE_BACKEND_AUTOLOAD=0 /opt/venv/bin/python -c "$old"; then \
      sed -i '/^numpy==/,/[^\\]$/d' /opt/inception/requirements/trainer.txt; \
      cat /opt/inception/requirements/numpy1.txt >>/opt/inception/requirements/trainer.txt; \
    fi; \
    /opt/venv/bin/pip install --no-cache-dir --require-hashes "$@" -r /opt/inception/requirements/trainer.txt
COPY trainer/inception_trainer /opt/inception/inception_trainer
RUN /opt/venv/bin/python -m compileall -q /opt/inception/inception_trainer
ENV PATH=/opt/venv/bin:$PATH PYTHONPATH=/opt/inception PYTHONUNBUFFERED=1 USER=inception HOME=/tmp
USER 10001:10001
ENTRYPOINT ["python3", "-m", "inception_trainer"]
CMD ["--help"]
