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
#
# The same bits each time: make images. What is in them: make sbom. docs/images.md

ARG BASE_IMAGE=python:3.11-slim-bookworm@sha256:a36c24f9cbdf4fd0f52d67f0823eeac19c2028c637cecc392d97f980d4fec56b
ARG OPERATOR_BASE_IMAGE=python:3.11-slim-bookworm@sha256:a36c24f9cbdf4fd0f52d67f0823eeac19c2028c637cecc392d97f980d4fec56b

# Empty unless a named build context of the same name replaces it.
FROM scratch AS wheels

# hadolint ignore=DL3006
FROM ${OPERATOR_BASE_IMAGE} AS operator-build
SHELL ["/bin/sh", "-euc"]
WORKDIR /build
COPY requirements/operator.txt ./
RUN --mount=type=bind,from=wheels,target=/wheels \
    python3 -m venv /tmp/pip; \
    set --; if ls /wheels/*.whl >/dev/null 2>&1; then set -- --no-index --find-links /wheels; fi; \
    /tmp/pip/bin/pip install --no-cache-dir --no-compile --require-hashes --target packages "$@" -r operator.txt
COPY images ./
COPY operator/inception_operator inception_operator
ARG VERSION=0.1.0
ARG SOURCE_DATE_EPOCH=0
# Byte code has sets in it, whose order depends on the hash seed. The check runs in what was assembled.
RUN PYTHONHASHSEED=0 PYTHONDONTWRITEBYTECODE=1 python3 assemble.py --packages packages --application inception_operator \
      --version "${VERSION}" --epoch "${SOURCE_DATE_EPOCH}" /rootfs; \
    inside() { env -i PATH=/opt/inception/bin PYTHONPATH=/opt/inception:/opt/inception/packages "$(command -v chroot)" /rootfs "$@"; }; \
    inside python3 -m inception_operator --help >/dev/null; \
    inside python3 -W error - <check_operator.py

FROM scratch AS operator-sbom
COPY --from=operator-build /rootfs/usr/share/sbom /

FROM scratch AS operator
ARG OPERATOR_BASE_IMAGE
ARG REVISION=unknown
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="inception-operator" \
      org.opencontainers.image.description="Kubernetes operator for distributed training of image classifiers on any accelerator" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="${OPERATOR_BASE_IMAGE}"
COPY --from=operator-build /rootfs/ /
# Libraries ask for the user's name, and the number that the pod runs as may have none.
ENV PATH=/opt/inception/bin \
    PYTHONPATH=/opt/inception:/opt/inception/packages \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    USER=inception
USER 10001:10001
ENTRYPOINT ["python3", "-m", "inception_operator"]
CMD ["run"]

# hadolint ignore=DL3006
FROM ${BASE_IMAGE} AS trainer-packages
SHELL ["/bin/sh", "-euc"]
ARG SOURCE_DATE_EPOCH=0
ARG VERSION=0.1.0
COPY requirements/numpy1.txt requirements/nvidia.txt requirements/torch.txt requirements/trainer.txt /opt/inception/requirements/
# The base's own site-packages stay visible, so that a vendor's torch is found and kept. Before 2.3 it wants numpy 1.
# pip works from an environment of its own, which does not stay. Byte code does not depend on the time of its source.
# Of /opt only what is ours is touched: a vendor's gigabytes would be copied into this layer. Some packages bring files that
# no Python 3 compiles, which is no reason to stop.
RUN --mount=type=bind,from=wheels,target=/wheels --mount=type=bind,source=images/contents.py,target=/contents.py \
    export PYTHONDONTWRITEBYTECODE=1 PYTHONHASHSEED=0; \
    python3 -m venv --system-site-packages --without-pip /opt/venv; \
    python3 -m venv /tmp/pip; \
    pip="$(/tmp/pip/bin/python -c 'import pip; print(pip.__path__[0])')"; \
    install() { /opt/venv/bin/python "$pip" install --no-cache-dir --no-compile --require-hashes "$@"; }; \
    set --; if ls /wheels/*.whl >/dev/null 2>&1; then set -- --no-index --find-links /wheels; fi; \
    if ! TORCH_DEVICE_BACKEND_AUTOLOAD=0 /opt/venv/bin/python -c 'import torch' 2>/dev/null; then \
      install "$@" -r /opt/inception/requirements/torch.txt -r /opt/inception/requirements/nvidia.txt; \
    fi; \
    old='import sys, torch; sys.exit(tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 3))'; \
    if TORCH_DEVICE_BACKEND_AUTOLOAD=0 /opt/venv/bin/python -c "$old"; then \
      sed -i '/^numpy==/,/[^\\]$/d' /opt/inception/requirements/trainer.txt; \
      cat /opt/inception/requirements/numpy1.txt >>/opt/inception/requirements/trainer.txt; \
    fi; \
    install "$@" -r /opt/inception/requirements/trainer.txt; \
    mkdir -p /usr/share/sbom; \
    /opt/venv/bin/python /contents.py --version "${VERSION}" trainer >/usr/share/sbom/inception-trainer.cdx.json; \
    /opt/venv/bin/python -m compileall -q -f --invalidation-mode unchecked-hash /opt/venv || true; \
    rm -rf /tmp/pip; \
    find /opt/venv /opt/inception /usr/share/sbom -exec touch --no-dereference --date="@${SOURCE_DATE_EPOCH}" {} +

FROM scratch AS trainer-sbom
COPY --from=trainer-packages /usr/share/sbom/inception-trainer.cdx.json /

FROM trainer-packages AS trainer
ARG BASE_IMAGE
ARG REVISION=unknown
ARG SOURCE_DATE_EPOCH=0
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="inception-trainer" \
      org.opencontainers.image.description="Trainer and launcher of the Inception training operator" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="${BASE_IMAGE}"
COPY trainer/inception_trainer /opt/inception/inception_trainer
# Checked: an image that replaces a file of it must not run the byte code of the old one.
RUN PYTHONDONTWRITEBYTECODE=1 PYTHONHASHSEED=0 /opt/venv/bin/python -m compileall -q -f --invalidation-mode checked-hash /opt/inception/inception_trainer; \
    find /opt/inception -exec touch --no-dereference --date="@${SOURCE_DATE_EPOCH}" {} +
ENV PATH=/opt/venv/bin:$PATH PYTHONPATH=/opt/inception PYTHONUNBUFFERED=1 USER=inception HOME=/tmp
USER 10001:10001
ENTRYPOINT ["python3", "-m", "inception_trainer"]
CMD ["--help"]
