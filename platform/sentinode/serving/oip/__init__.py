"""The Open Inference Protocol, version 2: what Triton, KServe and their clients speak. Over HTTP and gRPC."""
