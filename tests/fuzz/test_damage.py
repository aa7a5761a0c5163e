"""A few hundred inputs of the fuzz script, in this process; `python -m tests.fuzz.damage` reads any number."""

import numpy as np
import pytest

from tests.fuzz import damage
from tests.fuzz.kinds import KINDS
from tests.fuzz.mutations import CHANGES, damaged, token

COMPILES = ("exported programs, run", "detectors of scenes", "checkpoints")  # seconds each
QUICK = [name for name in KINDS if name not in COMPILES]
SEED, EACH = 3, 10


@pytest.mark.parametrize("name", QUICK)
def test_damage_ends_in_our_error_that_names_the_file(name):
    if name not in damage.known_here([name])[0]:
        pytest.skip(f"{KINDS[name].needs} is not installed")
    results = [result for _, result, _ in damage.inputs(name, range(EACH), SEED)]
    assert set(results) <= {damage.READ, damage.REFUSED}
    assert damage.REFUSED in results or name == "runs"


def test_an_error_of_another_kind_or_without_the_file_is_found(tmp_path):
    def kind(error):
        def read(folder, file):
            raise error

        return KINDS["CIFAR"]._replace(read=read)

    file = tmp_path / "a"
    assert damage.outcome(kind(ValueError(f"{file} is damaged")), tmp_path, file) == damage.REFUSED
    assert damage.outcome(kind(ValueError("no such key")), tmp_path, file) == "names no file: ValueError: no such key"
    assert damage.outcome(kind(KeyError(str(file))), tmp_path, file).startswith("raw KeyError")


def test_inputs_are_a_function_of_seed_kind_and_number():
    data = bytes(range(256)) * 4
    one, two = (damaged(data, np.random.default_rng([1, 2])) for _ in range(2))
    assert one == two
    assert len({damaged(data, np.random.default_rng([1, i])) for i in range(40)}) == 40


@pytest.mark.parametrize("change", [*CHANGES, token])
def test_every_change_takes_every_file(change):
    for data in (b"x", b"{}", b'{"a": [1, 2.5, "b", null]}' * 3):
        for i in range(20):
            assert isinstance(change(data, np.random.default_rng(i)), bytes)
