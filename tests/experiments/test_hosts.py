"""Whether a command runs alone or as one of several processes, and which rows a process reads."""

import pytest

from experiments import hosts
from experiments.hosts import Hosts, Place, Share
from experiments.images.config import QuantOD, identity, resolve

SLURM = {"SLURM_JOB_ID": "7", "SLURM_STEP_NODELIST": "node[3-4]", "SLURM_NTASKS": "2", "SLURM_PROCID": "1"}
SLURM |= {"SLURM_LOCALID": "0"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"processes": 2}, "--processes needs --coordinator"),
        ({"coordinator": "node7"}, "must be HOST:PORT"),
        ({"coordinator": "node7:5000"}, "needs --processes N and --process I"),
        ({"coordinator": "node7:5000", "processes": 2, "process": 2}, "must lie in 0 to 1, got 2"),
        ({"coordinator": "auto", "process": 1}, "leave out --process"),
    ],
)
def test_flags_that_contradict_each_other_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        hosts.place_of(Hosts(**given))


@pytest.fixture
def slurm(monkeypatch):
    """The variables of a task that SLURM started."""

    def start(**changed):
        for name, value in (SLURM | changed).items():
            monkeypatch.setenv(name, value)

    for name in ("KUBERNETES_SERVICE_HOST", "OMPI_MCA_orte_hnp_uri", "JAX_COORDINATOR_PORT"):
        monkeypatch.delenv(name, raising=False)
    return start


def test_what_a_cluster_left_in_the_shell_changes_nothing(slurm):
    slurm()
    assert hosts.place_of(Hosts()) is None
    hosts.join(Hosts())
    assert hosts.is_first()


def test_auto_takes_the_numbers_from_slurm(slurm):
    slurm()
    address, port = "node3", 7 + 65535 - 2**12 + 1
    assert hosts.place_of(Hosts(coordinator="auto")) == Place(f"{address}:{port}", 2, 1, (0,))


def test_a_single_task_runs_alone(slurm):
    slurm(SLURM_NTASKS="1", SLURM_PROCID="0")
    hosts.join(Hosts(coordinator="auto"))
    assert hosts.is_first()


def test_auto_without_a_cluster_is_an_error(slurm, monkeypatch):
    for name in SLURM:
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ValueError, match="auto finds no cluster"):
        hosts.place_of(Hosts(coordinator="auto"))


def test_hosts_are_no_part_of_what_a_run_computes():
    one, two = (resolve(QuantOD(hosts=given), accelerator=False) for given in (Hosts(), Hosts(coordinator="a:1")))
    assert identity(one) == identity(two)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_shares_are_every_row_once(count):
    rows = list(range(7))
    parts = [list(map(Share(rows, i, count).__getitem__, range(len(Share(rows, i, count))))) for i in range(count)]
    assert parts == [rows[i::count] for i in range(count)]
