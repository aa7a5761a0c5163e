"""Random damage to the bytes of a file: what disks, downloads, editors and attackers do to it."""

from __future__ import annotations

import re

import numpy as np

EXTREMES = (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\x80", b"\x01\0\0\0")
TOKENS = (
    *(b"null", b"true", b"-1", b"0", b"1e999", b"NaN", b"99999999999999999999", b"0.5", b'""', b'"x"', b"[]", b"{}"),
    *(b"[[]]", b"[null]", b'{"a": 1}', b'"\\ud800"', b'"../../x"', b'"\\u0000"'),
)
VALUE = re.compile(rb'"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?|true|false|null')


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """One to three changes, of the kinds below; text in JSON is changed value by value half of the time."""
    for _ in range(int(rng.integers(1, 4))):
        changes = CHANGES + (token,) * len(CHANGES) if data[:1] in b"{[" else CHANGES
        data = changes[int(rng.integers(len(changes)))](data, rng) if data else b"\0"
    return data


def _place(data: bytes, rng: np.random.Generator) -> int:
    """Anywhere, half of the time in the first 200 bytes, where headers are."""
    return int(rng.integers(min(len(data), 200) if rng.random() < 0.5 else len(data)))


def bits(data: bytes, rng: np.random.Generator) -> bytes:
    """Up to eight bits flip."""
    changed = bytearray(data)
    for _ in range(int(rng.integers(1, 9))):
        changed[_place(data, rng)] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def extreme(data: bytes, rng: np.random.Generator) -> bytes:
    """Four bytes become a number at the end of some range."""
    start = _place(data, rng)
    return data[:start] + EXTREMES[int(rng.integers(len(EXTREMES)))] + data[start + 4 :]


def noise(data: bytes, rng: np.random.Generator) -> bytes:
    """Up to 64 bytes become random ones."""
    start, length = _place(data, rng), int(rng.integers(1, 65))
    return data[:start] + rng.bytes(length) + data[start + length :]


def cut(data: bytes, rng: np.random.Generator) -> bytes:
    """The file ends early."""
    return data[: _place(data, rng)]


def removed(data: bytes, rng: np.random.Generator) -> bytes:
    """Up to 64 bytes are missing."""
    start = _place(data, rng)
    return data[:start] + data[start + int(rng.integers(1, 65)) :]


def repeated(data: bytes, rng: np.random.Generator) -> bytes:
    """Up to 64 bytes are there several times."""
    start, length = _place(data, rng), int(rng.integers(1, 65))
    return data[:start] + data[start : start + length] * int(rng.integers(2, 9)) + data[start + length :]


def moved(data: bytes, rng: np.random.Generator) -> bytes:
    """Up to 64 bytes of one place lie in another."""
    start, place, length = _place(data, rng), _place(data, rng), int(rng.integers(1, 65))
    return data[:place] + data[start : start + length] + data[place + length :]


def number(data: bytes, rng: np.random.Generator) -> bytes:
    """A number written in digits becomes another one."""
    found = list(re.finditer(rb"\d+", data[:100_000]))
    if not found:
        return bits(data, rng)
    one = found[int(rng.integers(len(found)))]
    other = (b"0", b"1", b"-1", b"4294967296", b"1000000000000", b"9" * 400)[int(rng.integers(6))]
    return data[: one.start()] + other + data[one.end() :]


def token(data: bytes, rng: np.random.Generator) -> bytes:
    """A value of JSON becomes one of another kind, or another value of the file."""
    found = list(VALUE.finditer(data[:100_000]))
    if not found:
        return bits(data, rng)
    one, other = (found[int(i)] for i in rng.integers(len(found), size=2))
    new = other[0] if rng.random() < 0.3 else TOKENS[int(rng.integers(len(TOKENS)))]
    return data[: one.start()] + new + data[one.end() :]


CHANGES = (bits, extreme, noise, cut, removed, repeated, moved, number)
