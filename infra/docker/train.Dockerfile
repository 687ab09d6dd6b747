# Ingest, training, search, scoring, evaluation, rollouts. PyTorch's wheels bring CUDA; the node brings the driver. Built like serve.Dockerfile:
#
#     infra/docker/build train python:3.11-slim-bookworm@sha256:<digest>
ARG PYTHON
FROM ${PYTHON} AS packages
ARG SOURCE_DATE_EPOCH=0
ENV SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH} PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_COMPILE=1
RUN python3.11 -m venv /opt/venv
WORKDIR /source
COPY pyproject.toml README.md LICENSE constraints.txt ./
COPY platform platform
RUN /opt/venv/bin/pip install --quiet -c constraints.txt '.[train,serve,traces,slides,cluster]'
COPY infra/docker/finish infra/docker/sbom.py infra/docker/
RUN bash infra/docker/finish

FROM ${PYTHON}
RUN useradd --uid 1000 --create-home --shell /bin/bash ray 2>/dev/null || true
COPY --from=packages /opt/venv /opt/venv
COPY infra/docker/sentinode-drain /usr/local/bin/sentinode-drain
ENV PATH=/opt/venv/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 HOME=/tmp MPLCONFIGDIR=/tmp/matplotlib RAY_USAGE_STATS_ENABLED=0 \
    NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 1000:1000
WORKDIR /tmp
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s CMD \
    ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:52365/api/healthz', timeout=8)"]
CMD ["sentinode", "doctor"]
