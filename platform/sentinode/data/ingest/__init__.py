"""From a source to shards and a manifest, as pure steps; distributed/ingest.py runs them over Ray."""
