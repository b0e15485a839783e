"""A GPU that is not there: tensors that say they are on one, and compute on the CPU.

What the program does with a GPU can be tested without one as far as it is bookkeeping. The numbers are real, so that
they can be compared with those of the CPU. The rules are those of a device: operations on tensors of both devices are
refused. And what costs time on a GPU is counted by the line of the package that asks for it: launches of kernels,
copies between host and device, and moments at which the host waits for the device.

Not seen are other bits of other kernels, memory, and streams. A few operations launch more than the one kernel that is
counted, and an index that is computed on the host inside of an operation of PyTorch escapes.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter, tree_map

import hpcspin

GPU = torch.device("cuda", 0)
_PACKAGE = str(Path(hpcspin.__file__).parent)
_ELSEWHERE = "elsewhere"
"""Place of what no line of the package has asked for, such as PyTorch's derivatives."""

_aten = torch.ops.aten
_WAITING = {
    _aten._local_scalar_dense.default,
    _aten.equal.default,
    _aten.masked_select.default,
    _aten.nonzero.default,
    _aten._unique2.default,
    _aten.unique_dim.default,
}
"""Operations whose result, or its shape, the host waits for."""
_INDEXING = {
    _aten.index.Tensor,
    _aten.index_put.default,
    _aten.index_put_.default,
    _aten._index_put_impl_.default,
    _aten._unsafe_index.Tensor,
}
_WITHOUT_KERNEL = {
    _aten._unsafe_view.default,
    _aten.alias.default,
    _aten.detach.default,
    _aten.empty.memory_format,
    _aten.empty_like.default,
    _aten.empty_strided.default,
    _aten.lift_fresh.default,
    _aten.new_empty.default,
    _aten.new_empty_strided.default,
}


@dataclass
class Counts:
    """What has been asked of the device, by place in the package (``potential/layers.py:198``).

    Attributes
    ----------
    launches
        Kernels.
    copies
        From the host to the device and back.
    waits
        Moments at which the host waits for the device.
    """

    launches: Counter[str] = field(default_factory=Counter)
    copies: Counter[str] = field(default_factory=Counter)
    waits: Counter[str] = field(default_factory=Counter)


class PretendedTensor(torch.Tensor):
    """A tensor of the CPU that says it is on the GPU.

    PyTorch itself is told that it is on the CPU, whose kernels are there; Python code is told otherwise.
    """

    held: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, real: torch.Tensor) -> PretendedTensor:
        # Views of one that was made in inference mode could not be taken there.
        with torch.inference_mode(False):
            made = torch.Tensor._make_wrapper_subclass(
                cls, real.size(), strides=real.stride(), storage_offset=real.storage_offset(), dtype=real.dtype
            )
        made.held = real
        return made

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        """Parameters of modules are then swapped in place when they move, as real ones are."""
        return ["held"], None

    @property
    def device(self) -> torch.device:
        return GPU

    @property
    def is_cuda(self) -> bool:
        return True

    def __repr__(self) -> str:
        return f"PretendedTensor({self.held})"

    def __deepcopy__(self, memo: dict[int, Any]) -> torch.Tensor:
        copied = PretendedTensor(self.held.clone())
        return torch.nn.Parameter(copied, self.requires_grad) if isinstance(self, torch.nn.Parameter) else copied

    def cpu(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        return self.to("cpu")

    def numpy(self, **kwargs: Any) -> Any:
        raise TypeError("can't convert cuda:0 device type tensor to numpy; use Tensor.cpu()")

    __array__ = numpy

    def to(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        if args and isinstance(args[0], torch.Tensor):
            device, dtype = args[0].device, args[0].dtype
        else:
            device, dtype, _, _ = torch._C._nn._parse_to(*args, **kwargs)
        if device is None or device.type == "cuda":
            return self if dtype in (None, self.dtype) else torch.Tensor.to(self, dtype)
        return _aten._to_copy.default(self, dtype=dtype, device=device)

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        raise RuntimeError(f"{func}: a tensor of the pretended GPU is used where it is not pretended")


class PretendedGPU(TorchDispatchMode):
    """Runs operations by the rules of a device, and counts them; see `pretended_gpu`."""

    def __init__(self) -> None:
        super().__init__()
        self._counts: Counts | None = None

    @contextmanager
    def counting(self) -> Iterator[Counts]:
        """Count what is asked of the device."""
        self._counts = Counts()
        try:
            yield self._counts
        finally:
            self._counts = None

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        # In inference mode operations come here that are made of others.
        with self:
            parts = func.decompose(*args, **kwargs)
        return self._run(func, args, kwargs) if parts is NotImplemented else parts

    def _run(self, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """An operation on tensors of one device, or a copy between both."""
        tensors = [x for x in tree_iter((args, dict(kwargs))) if isinstance(x, torch.Tensor)]
        given = [x for x in tensors if isinstance(x, PretendedTensor)]
        wanted = kwargs.get("device")
        there = bool(given) if wanted is None else torch.device(wanted).type == "cuda"
        if given or there:
            self._look_at(func, args, tensors, there)
        real = dict(kwargs)
        if wanted is not None:
            real |= {"device": torch.device("cpu")}
        result = func(*tree_map(numbers, args), **tree_map(numbers, real))
        if not there or func in _WAITING:
            return result
        # What is changed in place stays the same tensor.
        known = {id(x.held): x for x in given}
        return tree_map(lambda x: known.get(id(x), _pretended(x)) if isinstance(x, torch.Tensor) else x, result)

    def _look_at(self, func: Any, args: tuple[Any, ...], tensors: list[torch.Tensor], there: bool) -> None:
        if func in (_aten._to_copy.default, _aten.copy_.default):
            source = isinstance(args[0 if func is _aten._to_copy.default else 1], PretendedTensor)
            target = there if func is _aten._to_copy.default else isinstance(args[0], PretendedTensor)
            # PyTorch's own derivatives make zeros where it believes the tensors to be, and fill them with gradients:
            # on a real GPU both are there. What a derivative of the package copies has a place in the package.
            filled = source and torch._C._current_graph_task_id() != -1 and _place() == _ELSEWHERE
            self._count("launches" if filled or (source and target) else "copies")
            return
        indices = [x for x in args[1] if x is not None] if func in _INDEXING else []
        if any(not isinstance(x, PretendedTensor) for x in indices):
            self._count("copies")
        if func in _WAITING or any(x.dtype in (torch.bool, torch.uint8) for x in indices):
            self._count("waits")
        # Derivatives make tensors themselves, on what they take for the device.
        derives = torch._C._current_graph_task_id() != -1
        at_host = [x for x in tensors if not isinstance(x, PretendedTensor) and x.dim() > 0]
        if any(all(x is not index for index in indices) for x in at_host) and not derives:
            raise RuntimeError(f"{func}: expected all tensors on one device, found cuda:0 and cpu at {_place()}")
        if func not in _WAITING | _WITHOUT_KERNEL and not _is_view(func):
            self._count("launches")

    def _count(self, what: str) -> None:
        if self._counts is not None:
            getattr(self._counts, what)[_place()] += 1


class _Constructors(TorchFunctionMode):
    """`torch.tensor` and `torch.as_tensor` copy to a device where no mode of operations sees it."""

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = dict(kwargs or {})
        if func not in (torch.tensor, torch.as_tensor):
            return func(*args, **given)
        data, device = args[0], given.pop("device", None)
        if isinstance(data, PretendedTensor):
            return data.to(device or GPU, given.get("dtype") or data.dtype)
        made = func(*args, **given)
        return made if device is None else made.to(device)


@contextmanager
def pretended_gpu() -> Iterator[PretendedGPU]:
    """Pretend that there is a GPU: tensors and modules can be moved to the device `GPU`."""
    swapped = torch.__future__.get_swap_module_params_on_conversion()
    with patch.object(torch.cuda, "_lazy_init", lambda: None), PretendedGPU() as gpu, _Constructors():
        torch.__future__.set_swap_module_params_on_conversion(True)
        try:
            yield gpu
        finally:
            torch.__future__.set_swap_module_params_on_conversion(swapped)


def real(tensor: torch.Tensor) -> torch.Tensor:
    """The numbers of a tensor, wherever it says they are."""
    assert isinstance(tensor, PretendedTensor), "the result is not on the GPU"
    return tensor.held


def numbers(x: Any) -> Any:
    """The numbers of a tensor, also of a gradient that PyTorch's derivatives have made, which says it is on the CPU."""
    return x.held if isinstance(x, PretendedTensor) else x


def _pretended(x: torch.Tensor) -> PretendedTensor:
    return x if isinstance(x, PretendedTensor) else PretendedTensor(x)


def _is_view(func: Any) -> bool:
    aliases = (argument.alias_info for argument in func._schema.arguments)
    return any(alias is not None and not alias.is_write for alias in aliases)


def _place() -> str:
    """File and line of the package that the operation comes from."""
    frame = sys._getframe(1)
    while frame is not None and not frame.f_code.co_filename.startswith(_PACKAGE):
        frame = frame.f_back  # type: ignore[assignment]
    if frame is None:
        return _ELSEWHERE
    return f"{frame.f_code.co_filename[len(_PACKAGE) + 1 :]}:{frame.f_lineno}"
