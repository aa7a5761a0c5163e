"""The one place that compiles: jit on one device, pmap over several, also those of several hosts.

A function that may run on several devices takes `axis_name`: None on one device, `AXIS` when each device holds its
share of the split arguments. Everything else (state, data sets, keys) is replicated and stays so from call to call,
which is why results never need un-replicating.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from quantjax import machine
from quantjax.types import Array, PyTree

AXIS = "devices"

Axes = int | None


def data_parallel(
    fn: Callable[..., PyTree],
    in_axes: Sequence[Axes],
    out_axes: Axes | Sequence[Axes],
    *,
    donate_argnums: Sequence[int] = (),
    devices: Sequence[Any] | None = None,
) -> Callable[..., PyTree]:
    """Compile fn(*args, axis_name=...) for `devices` (default: all local ones) and return run(*args).

    in_axes has one entry per argument: None = the same for every device, a = all its arrays are split along axis a,
    whose length the number of devices must divide (`pad_axis` sees to it). out_axes, one entry or one per result,
    is None for results that are equal on all devices, a for results to be joined along axis a. The buffers of
    donate_argnums are given up to the results.

    On one device this is jit with axis_name=None; on several it is pmap with axis_name=AXIS, over which fn reduces.
    With several hosts every process calls run with its own share of the split arguments and gets its own share of the
    joined results; `devices` are then those in the same places of every process. Raises ValueError for a split length
    that does not divide.
    """
    devices = list(jax.local_devices() if devices is None else devices)
    if len(devices) == 1 and jax.process_count() == 1:
        return _on_one(fn, devices[0], tuple(donate_argnums))
    if all(axis is None for axis in in_axes):  # pmap wants an argument that is split
        inner = data_parallel(
            lambda *args, axis_name: fn(*args[:-1], axis_name=axis_name), (*in_axes, 0), out_axes,
            donate_argnums=donate_argnums, devices=devices,
        )  # fmt: skip
        return lambda *args: inner(*args, np.zeros(len(devices), np.float32))
    placed = None if jax.process_count() > 1 else devices

    @cache
    def mapped(empty: tuple[Any, ...]) -> Callable[..., PyTree]:
        """The pmapped function without the arguments that hold no arrays: pmap takes the axes of others for theirs."""
        present = [i for i, structure in enumerate(empty) if structure is None]

        def call(*given: PyTree) -> PyTree:
            rest = iter(given)
            args = [next(rest) if s is None else jax.tree.unflatten(s, []) for s in empty]
            return fn(*args, axis_name=AXIS)

        return jax.pmap(
            call,
            axis_name=AXIS,
            in_axes=tuple(in_axes[i] for i in present),
            out_axes=tuple(out_axes) if isinstance(out_axes, Sequence) else out_axes,
            donate_argnums=tuple(present.index(i) for i in donate_argnums if i in present),
            devices=_of_all_hosts(devices),
        )

    def run(*args: PyTree) -> PyTree:
        if len(args) != len(in_axes):
            raise ValueError(f"in_axes names {len(in_axes)} arguments, got {len(args)}")
        shares = [_split(arg, axis, len(devices), placed) for arg, axis in zip(args, in_axes, strict=True)]
        empty = tuple(None if jax.tree.leaves(share) else jax.tree.structure(share) for share in shares)
        result = mapped(empty)(*(share for share, structure in zip(shares, empty, strict=True) if structure is None))
        if devices[0].platform == "cpu":
            # several runs in flight would wait for each other's reductions in one small pool of threads
            jax.block_until_ready(result)
        if isinstance(out_axes, Sequence):
            joined = [_join(part, axis) for part, axis in zip(result, out_axes, strict=True)]
            return type(result)(*joined) if hasattr(result, "_fields") else type(result)(joined)
        return _join(result, out_axes)

    return run


def _of_all_hosts(devices: Sequence[Any]) -> list[Any]:
    """The devices in the same places of every process, process by process; of one process those that are given."""
    if jax.process_count() == 1:
        return list(devices)
    places = [jax.local_devices().index(device) for device in devices]
    of = [[d for d in jax.devices() if d.process_index == p] for p in range(jax.process_count())]
    return [own[place] for own in of for place in places]


def on_its_device(
    fn: Callable[..., PyTree], *, donate_argnums: Sequence[int] = (), static_argnums: Sequence[int] = ()
) -> Any:
    """Compile fn(*args) for whichever one device its arguments lie on.

    The buffers of donate_argnums are given up to the results; for static_argnums, which are hashable, fn is compiled
    value by value. A result that depends on no argument's values lands on the first device.
    """
    return jax.jit(fn, donate_argnums=tuple(donate_argnums), static_argnums=tuple(static_argnums))


def _on_one(fn: Callable[..., PyTree], device: Any, donate_argnums: tuple[int, ...]) -> Callable[..., PyTree]:
    compiled = jax.jit(partial(fn, axis_name=None), donate_argnums=donate_argnums)
    if device == jax.local_devices()[0]:
        return compiled

    def run(*args: PyTree) -> PyTree:
        with jax.default_device(device):
            return compiled(*args)

    return run


def _split(tree: PyTree, axis: Axes, count: int, devices: Sequence[Any] | None) -> PyTree:
    """Shares [.., count, length / count, ..] of split arguments, sent to `devices`; None leaves that to the call."""
    if axis is None:
        return tree

    def split(leaf: Any) -> Any:
        shape = np.shape(leaf)
        if shape[axis] % count:
            raise ValueError(
                f"an argument of shape {list(shape)} is split along axis {axis} over {count} devices, which do not "
                f"divide {shape[axis]}; fill it up with pad_axis"
            )
        shares = leaf.reshape(*shape[:axis], count, shape[axis] // count, *shape[axis + 1 :])
        if devices is None or not isinstance(leaf, np.ndarray):
            return shares
        mesh = jax.sharding.Mesh(np.array(devices), (AXIS,))
        spec = jax.sharding.PartitionSpec(*(None,) * axis, AXIS)
        return jax.device_put(shares, jax.sharding.NamedSharding(mesh, spec))

    return jax.tree.map(split, tree)


def _join(tree: PyTree, axis: Axes) -> PyTree:
    if axis is None:
        return tree

    def join(leaf: Array) -> Array:
        shape = leaf.shape
        return leaf.reshape(*shape[:axis], shape[axis] * shape[axis + 1], *shape[axis + 2 :])

    return jax.tree.map(join, tree)


def pad_axis(array: Any, axis: int, multiple: int, value: Any = 0) -> np.ndarray:
    """Fill up `axis` of a host array with `value` until `multiple` divides its length; returns a NumPy array."""
    array = np.asarray(array)
    widths = [(0, -array.shape[axis] % multiple if i == axis % array.ndim else 0) for i in range(array.ndim)]
    return np.pad(array, widths, constant_values=value)


def replicate(tree: PyTree, devices: Sequence[Any] | None = None, *, copy: bool = False) -> PyTree:
    """Put a pytree of arrays on every one of `devices` (default: all local ones), once, before a loop of calls.

    Arrays that are there already are handed back as they are; with copy=True never, so that the result may be donated.
    With several hosts every process gives the same values, which is not checked.
    """
    devices = list(jax.local_devices() if devices is None else devices)
    place: Any = devices[0]
    if device_count(devices) > 1:
        mesh = jax.sharding.Mesh(np.array(_of_all_hosts(devices)), (AXIS,))
        place = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())

    def put(leaf: Any) -> Array:
        if isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(put(jax.random.key_data(leaf)), impl=jax.random.key_impl(leaf))
        if jax.process_count() > 1:
            return leaf if not copy and getattr(leaf, "sharding", None) == place else _on_own(leaf, place, devices)
        if copy:
            return jax.device_put(np.array(leaf), place, may_alias=False)
        return jax.device_put(leaf, place)

    return jax.tree.map(put, tree)


def _on_own(leaf: Any, place: Any, devices: Sequence[Any]) -> Array:
    """This process's part of an array that all have: jax.device_put would compare it over the network."""
    value = np.array(leaf)
    own = [jax.device_put(value, device, may_alias=False) for device in devices]
    return jax.make_array_from_single_device_arrays(value.shape, place, own)


def upload(tree: PyTree, devices: Sequence[Any] | None = None) -> PyTree:
    """Send the host arrays of a split argument to the one device that will read them, ahead of the call.

    Where there are several devices the arrays come back as they are: `data_parallel` sends each its share. Loops hand
    over their batches this way, so that any other array that travels is a mistake that jax.transfer_guard shows.
    """
    devices = list(jax.local_devices() if devices is None else devices)
    if len(devices) > 1 or jax.process_count() > 1:
        return tree
    return jax.device_put(tree, devices[0])


def local_rows(tree: PyTree, axis_name: str | None, axis: int = 0, rows: int | None = None) -> PyTree:
    """Cut this device's share out of arrays drawn for the global batch; `tree` itself where axis_name is None.

    Call it inside the compiled function. The rows of the global batch are dealt out in order, so device i of n gets
    the i-th of n equal parts of `axis`. `rows` is the length of the share where the global batch was padded to divide
    among devices but the draws were not; zeros stand in for the missing ones. Raises ValueError when the number of
    devices does not divide the axis and rows is None, or when it is longer than all shares together.
    """
    if axis_name is None:
        return tree
    count = jax.lax.axis_size(axis_name)

    def own(leaf: Array) -> Array:
        share = -(-leaf.shape[axis] // count) if rows is None else rows
        missing = share * count - leaf.shape[axis]
        if missing < 0 or (rows is None and missing):
            raise ValueError(f"axis {axis} of shape {list(leaf.shape)} is no {count} equal shares; rows={rows}")
        widths = [(0, missing if i == axis % leaf.ndim else 0) for i in range(leaf.ndim)]
        start = jax.lax.axis_index(axis_name) * share
        return jax.lax.dynamic_slice_in_dim(jnp.pad(leaf, widths), start, share, axis)

    return jax.tree.map(own, tree)


def process_share(array: np.ndarray, axis: int) -> np.ndarray:
    """Return the part of a host array that this process feeds; with one process, all of it.

    Raises ValueError when the number of processes does not divide the axis.
    """
    count, index = jax.process_count(), jax.process_index()
    if array.shape[axis] % count:
        raise ValueError(f"{count} processes do not divide axis {axis} of shape {list(array.shape)}; use pad_axis")
    return np.split(array, count, axis)[index]


def sum_of_processes(tree: PyTree) -> PyTree:
    """Add up arrays that every process holds on its own; with one process, the arrays as they are."""
    if jax.process_count() == 1:
        return tree
    from jax.experimental import multihost_utils

    return jax.tree.map(lambda leaf: leaf.sum(axis=0), multihost_utils.process_allgather(tree))


def device_count(devices: Sequence[Any] | None = None) -> int:
    """Return over how many devices, of all hosts, a split axis is dealt out."""
    return jax.process_count() * (jax.local_device_count() if devices is None else len(devices))


def first_collectives() -> None:
    """Reduce once over the devices that programs use: gloo gives processes 30 s to come to their first reduction.

    Later ones may wait for each other as long as they like.
    """
    for devices in {tuple(jax.local_devices()), tuple(first_device_on_cpu() or jax.local_devices())}:
        total = data_parallel(lambda x, axis_name: jax.lax.psum(jnp.sum(x), axis_name), (0,), None, devices=devices)
        total(np.zeros(len(devices), np.float32))


def runs_loops_well(devices: Sequence[Any] | None = None) -> bool:
    """Whether a loop of training steps belongs inside the compiled function.

    Not on a CPU: XLA runs a convolution inside a while loop without its threaded kernels there, several to a hundred
    times slower than the same convolution outside.
    """
    return (jax.local_devices() if devices is None else list(devices))[0].platform != "cpu"


def cores_as_devices(count: int | None = None) -> None:
    """Make each of `count` CPU cores (default: all this process may use) a device of its own.

    XLA runs a convolution well on one core and poorly on several: batches split over such devices are scored 1.7 times
    as fast on two cores. Call it before JAX starts; afterwards it changes nothing. Accelerators are not concerned.
    """
    with contextlib.suppress(RuntimeError):  # JAX has started
        jax.config.update("jax_num_cpu_devices", count or machine.cores())


def first_device_on_cpu() -> list[Any] | None:
    """The first device where devices are CPU cores, else None (all): for work that one call spreads over all cores."""
    devices = jax.local_devices()
    return devices[:1] if devices[0].platform == "cpu" else None


def enable_compilation_cache(directory: str | Path) -> Path:
    """Keep compiled programs in `directory`, so that the next process need not compile them; returns it, absolute.

    A folder that the caller chose (JAX_COMPILATION_CACHE_DIR, jax.config) stays: JAX 0.10 opens one folder a process,
    at the first compilation, and leaves a later one unused without a word.
    """
    chosen = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]
    path = Path(chosen or directory).expanduser().resolve()
    path.mkdir(parents=True, exist_ok=True)
    jax.config.update("jax_compilation_cache_dir", str(path))
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    return path


def device_summary(devices: Sequence[Any] | None = None) -> str:
    """Return one line for reports, such as "1 x cpu" or "4 x NVIDIA A100 (gpu), 2 processes"."""
    chosen = list(jax.devices() if devices is None else devices)
    kinds = sorted({device.device_kind for device in chosen})
    platform = chosen[0].platform
    named = ", ".join(kinds) + ("" if kinds == [platform] else f" ({platform})")
    processes = f", {jax.process_count()} processes" if jax.process_count() > 1 else ""
    return f"{len(chosen)} x {named}{processes}"
