# The store of the local overlay: moto's S3 server, which keeps everything in memory. For trying things out alone.
ARG PYTHON
FROM ${PYTHON} AS packages
ARG SOURCE_DATE_EPOCH=0
ENV SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH} PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_COMPILE=1
RUN python3.11 -m venv /opt/venv
WORKDIR /source
COPY constraints.txt ./
RUN /opt/venv/bin/pip install --quiet -c constraints.txt 'moto[server]'
COPY infra/docker/finish infra/docker/sbom.py infra/docker/
RUN bash infra/docker/finish

FROM ${PYTHON}
COPY --from=packages /opt/venv /opt/venv
COPY infra/docker/local_store.py /opt/local_store.py
ENV PATH=/opt/venv/bin:/usr/bin:/bin PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 HOME=/tmp
USER 1000:1000
WORKDIR /tmp
EXPOSE 9000
HEALTHCHECK --interval=15s --timeout=5s CMD ["python", "-c", "import socket; socket.create_connection(('127.0.0.1', 9000), 4)"]
CMD ["python", "/opt/local_store.py"]
