import itertools
import threading

import pytest

from quantjax.data.ahead import ahead


def test_results_come_in_order_and_few_wait():
    begun = []

    def square(number):
        begun.append(number)
        return number * number

    results = ahead(square, itertools.count(), 3)  # endless
    assert list(itertools.islice(results, 5)) == [0, 1, 4, 9, 16]
    results.close()
    assert len(begun) <= 5 + 3
    assert list(ahead(square, [], 3)) == []
    assert list(ahead(square, [7], 3)) == [49]


def test_the_next_is_made_while_the_caller_is_busy():
    second = threading.Event()
    results = ahead(lambda number: second.set() if number == 2 else None, [1, 2], 1)
    next(results)
    assert second.wait(10.0)  # although nobody asked for it yet
    assert list(results) == [None]


def test_an_error_comes_where_its_result_would_have_come():
    results = ahead(lambda text: int(text), ["1", "two", "3"], 2)
    assert next(results) == 1
    with pytest.raises(ValueError, match="two"):
        next(results)
    with pytest.raises(ValueError, match="most"):
        ahead(int, [], 0)
