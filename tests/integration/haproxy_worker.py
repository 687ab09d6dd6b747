"""HAProxy as Ray Serve starts it, with the configuration that Ray writes, in front of the addresses of the arguments.

    haproxy_worker.py PORT REPLICA_ADDRESS:REPLICA_PORT ...

The environment is that of ``sentinode.serving.ingress.haproxy_variables``.
"""

from __future__ import annotations

import os
import sys

from ray.serve._private import constants
from ray.serve._private.haproxy import BackendConfig, HAProxyApi, HAProxyConfig, ServerConfig
from ray.serve.config import HTTPOptions

port, *replicas = sys.argv[1:]
servers = [ServerConfig(place, place.split(":")[0], int(place.split(":")[1])) for place in replicas]
backend = BackendConfig("http-sentinode", "/", servers=servers, app_name="sentinode")
api = HAProxyApi(
    HAProxyConfig(http_options=HTTPOptions(host="0.0.0.0", port=int(port))),
    {"sentinode": backend},
    constants.RAY_SERVE_HAPROXY_CONFIG_FILE_LOC,
)
api._generate_config_file_internal()
program = constants.RAY_SERVE_HAPROXY_BINARY_PATH
os.execv(program, [program, "-db", "-f", constants.RAY_SERVE_HAPROXY_CONFIG_FILE_LOC])
