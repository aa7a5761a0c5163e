import csv
import io
import sys
from contextlib import suppress

import pytest

from experiments import sinks

COLUMNS = {"path": str, "score": float, "parts": int}


def test_csv_quotes_names_and_leaves_gaps(capsys):
    write = sinks.printing_csv(COLUMNS)
    write({"path": 'a, "b".png', "score": float("nan"), "parts": 3, "more": 1})
    write({"path": "c.png", "score": 0.5})
    rows = list(csv.reader(io.StringIO(capsys.readouterr().out)))
    assert rows == [["path", "score", "parts"], ['a, "b".png', "nan", "3"], ["c.png", "0.5", ""]]


def test_parquet_holds_every_row_in_order_with_the_columns_types(tmp_path, monkeypatch):
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr(sinks, "GROUP", 2)
    with sinks.parquet(tmp_path / "deep" / "t.parquet", COLUMNS) as write:
        write({"path": "a", "score": 1.5})
        write({"path": "b", "score": 2.5, "parts": 7, "more": 1})
        write({"path": "c", "score": float("nan"), "parts": 8})
        assert not (tmp_path / "deep" / "t.parquet").exists()  # whole or not there
    file = parquet.ParquetFile(tmp_path / "deep" / "t.parquet")
    assert file.num_row_groups == 2
    assert list(map(str, file.schema_arrow.types)) == ["string", "double", "int64"]
    table = file.read().to_pydict()
    assert (table["path"], table["parts"]) == (["a", "b", "c"], [None, 7, 8])
    assert str(table["score"]) == "[1.5, 2.5, nan]"


def test_a_parquet_file_that_was_there_outlives_an_error_and_a_table_of_nothing(tmp_path):
    pytest.importorskip("pyarrow")
    file = tmp_path / "t.parquet"
    file.write_text("before")
    with sinks.parquet(file, COLUMNS):
        pass
    with suppress(RuntimeError), sinks.parquet(file, COLUMNS) as write:
        for _ in range(sinks.GROUP):
            write({"path": "a"})
        raise RuntimeError
    assert [one.name for one in tmp_path.iterdir()] == ["t.parquet"]
    assert file.read_text() == "before"


def test_without_pyarrow_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with (
        pytest.raises(ImportError, match=r"needs pyarrow: pip install 'quantjax\[parquet\]'"),
        sinks.parquet(tmp_path / "t.parquet", COLUMNS),
    ):
        pass
