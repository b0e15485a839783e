"""CuPy played by NumPy, as strict as CuPy is and as a card with two streams would be.

Host arrays and arrays of the card do not mix, copies between them are counted, inverses of singular matrices are not
finite, and reading in one stream what another one may not have written yet is an error.
"""

from __future__ import annotations

import ctypes
import hashlib
import operator
import shutil
import subprocess
import threading
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import array_api_compat.numpy as library
import numpy as np

HOST = Path(__file__).with_name("host_cuda.cpp")
H200_SHARED = 232_448


class Stream:
    """Counts what was launched into it, and how much of that is known to be done."""

    def __init__(self, non_blocking: bool = True) -> None:
        self.launched, self.finished, self.outer = 0, 0, []

    def synchronize(self) -> None:
        self.finished = self.launched

    def __enter__(self) -> Stream:
        self.outer.append(_current())
        _thread.stream = self
        return self

    def __exit__(self, *failure: object) -> None:
        _thread.stream = self.outer.pop()


_thread, _default = threading.local(), Stream()


def _current() -> Stream:
    return getattr(_thread, "stream", _default)


class CardArray:
    """An array on the card."""

    def __init__(self, values: Any) -> None:
        self.values = np.asarray(values)
        self.stream = _current()
        self.stream.launched += 1
        self.number = self.stream.launched

    def read(self) -> np.ndarray:
        assert self.stream is _current() or self.stream.finished >= self.number, (
            "an array is read in a stream that has not waited for the one that writes it"
        )
        return self.values

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.read(), name)
        if callable(found):
            return lambda *args, **kwargs: _wrapped(found(*args, **kwargs))
        return _wrapped(found)

    def __len__(self) -> int:
        return len(self.values)

    def __iter__(self) -> Any:
        return (self[row] for row in range(len(self)))

    def __getitem__(self, key: Any) -> CardArray:
        return _wrapped(self.read()[_unwrapped(key)])

    def __setitem__(self, key: Any, value: Any) -> None:
        self.read()[_unwrapped(key)] = _unwrapped(value)
        self.stream = _current()
        self.stream.launched += 1
        self.number = self.stream.launched

    def __array__(self, *_: object, **__: object) -> np.ndarray:
        raise TypeError("implicit conversion to a NumPy array is not allowed")

    __array_ufunc__ = None


def _operator(name: str) -> Any:
    function = getattr(operator, f"__{name.removeprefix('r')}__" if name in _REFLECTED else f"__{name}__")
    if name in _REFLECTED:
        return lambda self, other: _called(function, other, self)
    return lambda self, *other: _called(function, self, *other)


_REFLECTED = {"radd", "rsub", "rmul", "rtruediv"}
for _name in (*_REFLECTED, "add", "sub", "mul", "truediv", "matmul", "mod", "neg", "lt", "gt", "le", "ge", "eq"):
    setattr(CardArray, f"__{_name}__", _operator(_name))


def _wrapped(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return CardArray(value)
    if isinstance(value, tuple) and any(isinstance(part, np.ndarray) for part in value):
        return tuple(map(_wrapped, value))
    return value


def _unwrapped(value: Any) -> Any:
    if isinstance(value, CardArray):
        return value.read()
    if isinstance(value, list | tuple):
        return type(value)(_unwrapped(part) for part in value)
    if isinstance(value, np.ndarray):
        raise TypeError("Unsupported type <class 'numpy.ndarray'>")
    return value


class Card:
    """CuPy on a machine with cards; what it was asked for stands in its attributes.

    Attributes
    ----------
    calls, downloaded
        Array functions and bytes to the host.
    used
        Cards that were made the current one.
    pool
        Bytes that the memory pool keeps.
    compute_capability
        7.5, too old for the kernels, until a test sets another one.
    singular
        Matrices that `inv` is given, of all batches together, before one that counts as singular; None for no such.
    """

    def __init__(self, folder: Path) -> None:
        self.calls, self.downloaded, self.used, self.pool = 0, 0, [0], 2**20
        self.singular: int | None = None
        self.compute_capability = "75"
        self._folder, self._lock = folder, threading.Lock()
        card = self

        class Device:
            def __init__(self, number: int | None = None) -> None:
                self.id = card.used[-1] if number is None else number
                self.compute_capability = card.compute_capability
                self.attributes = {"MaxSharedMemoryPerBlockOptin": H200_SHARED, "MultiProcessorCount": 2}

            def use(self) -> None:
                card.used.append(self.id)

            def __enter__(self) -> None:
                card.used.append(self.id)

            def __exit__(self, *failure: object) -> None:
                card.used.pop()

        self.module = SimpleNamespace(
            **{name: getattr(self, name) for name in ("asarray", "asnumpy", "RawModule", "get_default_memory_pool")},
            **{name: _Namespace(self).__getattr__(name) for name in ("ascontiguousarray", "arange", "empty")},
            cuda=SimpleNamespace(
                Device=Device,
                Stream=Stream,
                get_current_stream=_current,
                is_available=lambda: True,
                runtime=SimpleNamespace(memGetInfo=lambda: (2**23, 2**23)),
                compiler=SimpleNamespace(CompileException=subprocess.CalledProcessError),
                driver=SimpleNamespace(CUDADriverError=OSError, occupancyMaxActiveBlocksPerMultiprocessor=lambda *_: 1),
            ),
        )
        self.namespace = _Namespace(self)

    def asarray(self, array: Any, dtype: Any = None) -> CardArray:
        return array if isinstance(array, CardArray) else CardArray(np.array(array, dtype=dtype))

    def asnumpy(self, array: CardArray) -> np.ndarray:
        _current().synchronize()
        self.downloaded += array.values.nbytes
        return array.read().copy()

    def get_default_memory_pool(self) -> Any:
        def free_all_blocks() -> None:
            self.pool = 0

        return SimpleNamespace(free_bytes=lambda: self.pool, free_all_blocks=free_all_blocks)

    def RawModule(self, code: str, options: tuple[str, ...]) -> Any:
        """The source compiled for this CPU, its threads emulated."""
        compiler = shutil.which("g++") or shutil.which("clang++")
        assert compiler is not None
        built = self._folder / f"{hashlib.sha256(repr((code, options)).encode()).hexdigest()}.so"
        if not built.exists():
            source = built.with_suffix(".cu")
            source.write_text(code)
            command = [compiler, "-O1", "-shared", "-fPIC", "-U_FORTIFY_SOURCE", "-w", f'-DKERNEL="{source}"', *options]
            subprocess.run([*command, str(HOST), "-o", str(built)], check=True, capture_output=True, text=True)
        return SimpleNamespace(get_function=lambda name: EmulatedFunction(ctypes.CDLL(str(built)), self._lock))

    def inverse(self, matrices: np.ndarray) -> np.ndarray:
        """As CuPy, which never raises."""
        with self._lock:
            inverted = np.linalg.inv(matrices)
            if self.singular is not None:
                if 0 <= self.singular < len(inverted):
                    inverted[self.singular] = np.nan
                self.singular -= len(inverted)
        return inverted


class EmulatedFunction:
    """A kernel whose threads are emulated, called as CuPy calls one."""

    max_dynamic_shared_size_bytes = 49_152
    kernel = SimpleNamespace(ptr=0)

    def __init__(self, library: ctypes.CDLL, lock: Any) -> None:
        self.library, self.order, self._lock = library, 0, lock

    def __call__(self, grid, threads, arguments, shared_mem) -> None:
        assert shared_mem <= self.max_dynamic_shared_size_bytes <= H200_SHARED
        arguments = [_unwrapped(part) for part in arguments]
        assert all(part.flags.c_contiguous for part in arguments if isinstance(part, np.ndarray))
        passed = [
            ctypes.c_void_p(part.ctypes.data) if isinstance(part, np.ndarray) else ctypes.c_int(part)
            for part in arguments
        ]
        with self._lock:
            self.order += 1  # In another random order of warps each time.
            assert self.library.launch(self.order, *grid, *threads, *passed) == 0


class _Namespace:
    """``array_api_compat.cupy``."""

    def __init__(self, card: Card) -> None:
        self._card = card

    def __getattr__(self, name: str) -> Any:
        if name == "linalg":
            functions = {"inv": self._card.inverse, "eigh": library.linalg.eigh}
            return SimpleNamespace(**{key: partial(self._called, function) for key, function in functions.items()})
        if name == "asarray":
            return self._card.asarray
        found = getattr(library, name)
        if isinstance(found, type) or not callable(found):
            return found
        return lambda *args, **kwargs: self._called(found, *args, **kwargs)

    def _called(self, function: Any, *args: Any, **kwargs: Any) -> Any:
        self._card.calls += 1
        return _called(function, *args, **kwargs)


def _called(function: Any, *args: Any, **kwargs: Any) -> Any:
    return _wrapped(function(*_unwrapped(args), **{name: _unwrapped(value) for name, value in kwargs.items()}))
