"""Sentinode: train, search and serve detectors of lymph-node metastases. Research use only."""

__version__ = "0.1.0"
__all__ = ["Client", "__version__"]


def __getattr__(name: str) -> object:
    # Lazy: `import sentinode` stays light.
    if name == "Client":
        from sentinode.serving.client import Client

        return Client
    raise AttributeError(f"module 'sentinode' has no attribute {name!r}")
