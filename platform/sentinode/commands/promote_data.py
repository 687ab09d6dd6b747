"""The data sets of a promotion: the one on which bundles are compared, and the one that the present one learnt from."""

from __future__ import annotations

from sentinode.bundle.bundle import Bundle
from sentinode.bundle.gate_data import DataSet
from sentinode.data.manifest import load_manifest
from sentinode.errors import ConfigError, ManifestError, ObjectNotFoundError, StoreError
from sentinode.experiment import read_run
from sentinode.storage import open_store


def data_of(bundle: Bundle, url: str | None, run: str | None = None) -> DataSet:
    """The data set that ``bundle`` was trained on, at ``url``, by default the one that its ``run`` names.

    Raises ConfigError where it is not to be found, or is there in another version only.
    """
    training = bundle.card.training
    if url is None:
        try:
            url = read_run(open_store(run or training.run_url)).experiment.data
        except ObjectNotFoundError as error:
            raise ConfigError(
                f"the run {training.run_url}, from which the bundle was made, is not there",
                "its run.json, which names the data set for the comparison",
                "give --data URL",
            ) from error
    manifest, store = load_manifest(url)
    found = manifest.digest()
    if found != training.manifest_digest:
        raise ConfigError(
            f"{url} has manifest {found[:12]}",
            f"{training.dataset} with manifest {training.manifest_digest[:12]}, on which the bundle was trained",
            "give --data URL of that version: of others nobody knows that they took no part in training",
        )
    return DataSet(manifest, store)


def present_data(bundle: Bundle, url: str | None, compared_on: DataSet) -> DataSet | str:
    """The data set that the present ``bundle`` was trained on, perhaps that of the candidate, or why it is not known.

    Raises ConfigError where another one lies at the ``url`` that was given.
    """
    if bundle.card.training.manifest_digest == compared_on.manifest.digest():
        return compared_on
    try:
        return data_of(bundle, url)
    except (ConfigError, StoreError, ManifestError) as error:
        if url is not None:
            raise
        return f"{error.found} (--current-data URL names it)"
