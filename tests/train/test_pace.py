"""A clock of one's own."""

import pytest

from quantjax.train.pace import every


@pytest.mark.parametrize(
    ("seconds", "times", "wanted"),
    [
        (10, [0, 3, 9.9, 10, 11, 19.9, 25, 36], [False, False, True, False, False, True, True]),
        (0, [5, 5, 5], [True, True]),
    ],
)
def test_due_when_so_much_time_has_passed_since_it_last_was(seconds, times, wanted):
    clock = iter(times)
    due = every(seconds, lambda: next(clock))
    assert [due() for _ in wanted] == wanted
