"""Engines of other projects share a run among their processes; each test is left out where its engine is not installed."""

from functools import partial

import pytest

pytest.importorskip("pyarrow")

from benchmarks.studies import killed


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> str:
    """Return the bits of a run of one process."""
    folder = tmp_path_factory.mktemp("alone") / "results"
    killed.run(folder)
    return killed.bits(folder)


def share(folder, rank):
    """Do the parts of one of two processes."""
    return killed.run(folder, (rank, 2)).total


def test_ray_shares_a_run(alone, tmp_path):
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        task = ray.remote(lambda folder, rank: killed.run(folder, (rank, 2)).total)  # nested, so its code goes along
        assert ray.get([task.remote(tmp_path / "out", rank) for rank in range(2)]) == [24, 24]
    finally:
        ray.shutdown()
    assert killed.bits(tmp_path / "out") == alone


def test_dask_shares_a_run(alone, tmp_path):
    distributed = pytest.importorskip("distributed")
    with distributed.Client(n_workers=2, threads_per_worker=1, dashboard_address=None) as client:
        assert client.gather(client.map(partial(share, tmp_path / "out"), range(2), pure=False)) == [24, 24]
    assert killed.bits(tmp_path / "out") == alone
