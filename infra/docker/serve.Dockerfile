# The endpoint: Ray Serve and ONNX Runtime, no PyTorch and no client of Kubernetes (126 MB). From the root of the repository:
#
#     infra/docker/build serve python:3.11-slim-bookworm@sha256:<digest>
#
# PYTHON has no default: whoever builds says, by digest, what is built upon. Any Debian-like image with python3.11 and bash will do.
ARG PYTHON
FROM ${PYTHON} AS packages
ARG SOURCE_DATE_EPOCH=0
ENV SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH} PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_COMPILE=1
RUN python3.11 -m venv /opt/venv
WORKDIR /source
COPY pyproject.toml README.md LICENSE constraints.txt ./
COPY platform platform
RUN /opt/venv/bin/pip install --quiet -c constraints.txt '.[serve,traces]'
COPY infra/docker/finish infra/docker/sbom.py infra/docker/
RUN bash infra/docker/finish

FROM ${PYTHON}
RUN useradd --uid 1000 --create-home --shell /bin/bash ray 2>/dev/null || true
COPY --from=packages /opt/venv /opt/venv
COPY infra/docker/sentinode-drain /usr/local/bin/sentinode-drain
COPY serve /opt/sentinode/serve
# HOME is a volume in a pod: the root file system is read-only there.
ENV PATH=/opt/venv/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONPATH=/opt/sentinode/serve PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 \
    HOME=/tmp RAY_USAGE_STATS_ENABLED=0
USER 1000:1000
WORKDIR /tmp
EXPOSE 8000
# In Kubernetes the probes of the manifests take its place.
HEALTHCHECK --interval=15s --timeout=5s --start-period=90s CMD \
    ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/-/healthz', timeout=4)"]
# In a pod, KubeRay's own command takes its place.
CMD ["sentinode", "serve", "--help"]
