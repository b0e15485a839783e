"""A GPU that is not there: tensors that say they are on one, and compute on the CPU.

What the program does with a GPU can be tested without one as far as it is bookkeeping. The numbers are real, so that
they can be compared with those of the CPU. The rules are those of a device: operations on tensors of both devices are
refused. And what costs time on a GPU is counted by the line of the package that asks for it: launches of kernels,
copies between host and device, and moments at which the host waits for the device.

A copy that the host does not wait for, between the device and pinned memory, arrives when a stream or an event is
waited for, and leaves nonsense in its place until then. Not seen are other bits of other kernels, memory, and kernels
in streams of their own. A few operations launch more than the one kernel that is
counted, and an index that is computed on the host inside of an operation of PyTorch escapes.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from torch.nn.utils import clip_grad
from torch.overrides import TorchFunctionMode
from torch.utils._foreach_utils import _group_tensors_by_device_and_dtype
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
        From the host to the device and back, for which the host waits.
    transfers
        The same between the device and pinned memory, for which it does not.
    waits
        Moments at which the host waits for the device.
    """

    launches: Counter[str] = field(default_factory=Counter)
    copies: Counter[str] = field(default_factory=Counter)
    transfers: Counter[str] = field(default_factory=Counter)
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

    def record_stream(self, stream: Any) -> None:
        pass

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
        self._pinned: list[torch.Tensor] = []
        self._under_way: list[tuple[torch.Tensor, torch.Tensor]] = []

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
        # PyTorch's own derivatives make zeros, and fill them with gradients, where PyTorch believes the tensors to be.
        there |= len(given) == len(tensors) and func is not _aten._to_copy.default and _is_own_derivative()
        if given or there:
            self._look_at(func, args, kwargs, tensors, there)
        real = dict(kwargs)
        if wanted is not None:
            real |= {"device": torch.device("cpu")}
        pinned = real.pop("pin_memory", None)
        to_host = func is _aten.copy_.default and not isinstance(args[0], PretendedTensor)
        if to_host and self._is_asynchronous(func, args, kwargs):
            self._under_way.append((args[0], args[1].held.clone()))
            return args[0].fill_(torch.nan)
        result = func(*tree_map(numbers, args), **tree_map(numbers, real))
        if pinned:
            self._pinned.append(result)
        if not there or func in _WAITING:
            return result
        # What is changed in place stays the same tensor.
        known = {id(x.held): x for x in given}
        return tree_map(lambda x: known.get(id(x), _pretended(x)) if isinstance(x, torch.Tensor) else x, result)

    def pin(self, tensor: torch.Tensor) -> torch.Tensor:
        """A copy of a tensor in memory that a device reads while the host goes on."""
        self._pinned.append(tensor.clone())
        return self._pinned[-1]

    def synchronize(self) -> None:
        """The host waits until all copies have arrived."""
        self._count("waits")
        for target, values in self._under_way:
            target.copy_(values)
        self._under_way.clear()

    def _is_asynchronous(self, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
        """Whether an operation copies between pinned memory and the device, and the host goes on."""
        if func is _aten.copy_.default:
            host, asked = (args[1] if isinstance(args[0], PretendedTensor) else args[0]), len(args) > 2 and args[2]
        elif func is _aten._to_copy.default:
            host, asked = args[0], kwargs.get("non_blocking")
        else:
            return False
        if not asked or isinstance(host, PretendedTensor):
            return False
        memory = host.untyped_storage().data_ptr()
        return any(one.untyped_storage().data_ptr() == memory for one in self._pinned)

    def _look_at(
        self,
        func: Any,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        tensors: list[torch.Tensor],
        there: bool,
    ) -> None:
        if func in (_aten._to_copy.default, _aten.copy_.default):
            source = isinstance(args[0 if func is _aten._to_copy.default else 1], PretendedTensor)
            target = there if func is _aten._to_copy.default else isinstance(args[0], PretendedTensor)
            across = "transfers" if self._is_asynchronous(func, args, kwargs) else "copies"
            self._count("launches" if source and target else across)
            return
        indices = [x for x in args[1] if x is not None] if func in _INDEXING else []
        if any(not isinstance(x, PretendedTensor) for x in indices):
            self._count("copies")
        if func in _WAITING or any(x.dtype in (torch.bool, torch.uint8) for x in indices):
            self._count("waits")
        at_host = [x for x in tensors if not isinstance(x, PretendedTensor) and x.dim() > 0]
        if any(all(x is not index for index in indices) for x in at_host):
            raise RuntimeError(f"{func}: expected all tensors on one device, found cuda:0 and cpu at {_place()}")
        if func not in _WAITING | _WITHOUT_KERNEL and not _is_view(func):
            self._count("launches")

    def _count(self, what: str) -> None:
        if self._counts is not None:
            getattr(self._counts, what)[_place()] += 1


class _Stream:
    """A stream, or the event at its end; all operations are done when they are asked for."""

    def __init__(self, gpu: PretendedGPU) -> None:
        self.synchronize = gpu.synchronize

    def wait_stream(self, other: _Stream) -> None:
        pass

    def record_event(self) -> _Stream:
        return self


class _Constructors(TorchFunctionMode):
    """`torch.tensor` and `torch.as_tensor` copy to a device where no mode of operations sees it; memory is pinned."""

    def __init__(self, gpu: PretendedGPU) -> None:
        super().__init__()
        self._gpu = gpu

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = dict(kwargs or {})
        if func is torch.Tensor.pin_memory:
            return self._gpu.pin(args[0])
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
    gpu, card = PretendedGPU(), SimpleNamespace(uuid="pretended")
    in_place_of = {
        "_lazy_init": lambda: None,
        "get_device_properties": lambda device: card,
        "mem_get_info": lambda device: (1 << 40, 1 << 40),
        "Stream": lambda: _Stream(gpu),
        "current_stream": lambda device=None: _Stream(gpu),
        "stream": lambda stream: nullcontext(),
        "synchronize": lambda device=None: gpu.synchronize(),
    }
    groups = patch.object(clip_grad, "_group_tensors_by_device_and_dtype", _grouped)
    # No extension in C++ knows these tensors.
    scatter = patch("hpcspin.potential.gather._scatter_has_kernels", lambda device: device.type == "cpu")
    with patch.multiple(torch.cuda, **in_place_of), groups, scatter, gpu, _Constructors(gpu):
        torch.__future__.set_swap_module_params_on_conversion(True)
        try:
            yield gpu
        finally:
            torch.__future__.set_swap_module_params_on_conversion(swapped)


def _grouped(lists: list[list[torch.Tensor]]) -> dict[Any, Any]:
    """PyTorch's own function, which asks no Python code for the device."""
    found = _group_tensors_by_device_and_dtype(lists)
    return {(group[0][0].device, dtype): (group, index) for (_, dtype), (group, index) in found.items()}


def undisturbed(gpu: PretendedGPU, ask: Callable[[], Any]) -> Any:
    """The answer, for which the device has neither copied nor made the host wait."""
    with gpu.counting() as counts:
        answer = ask()
    assert sum(counts.launches.values()) > 0
    assert not counts.copies
    assert not counts.transfers
    assert not counts.waits
    return answer


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


def _is_own_derivative() -> bool:
    """Whether a derivative of PyTorch asks for an operation, and not one of the package."""
    if torch._C._current_graph_task_id() == -1:
        return False
    frame = sys._getframe(1)
    while not frame.f_code.co_filename.startswith(_PACKAGE) and frame.f_code.co_name != "_engine_run_backward":
        assert frame.f_back is not None
        frame = frame.f_back
    return frame.f_code.co_name == "_engine_run_backward"


def _place() -> str:
    """File and line of the package that the operation comes from."""
    frame = sys._getframe(1)
    while frame is not None and not frame.f_code.co_filename.startswith(_PACKAGE):
        frame = frame.f_back  # type: ignore[assignment]
    if frame is None:
        return _ELSEWHERE
    return f"{frame.f_code.co_filename[len(_PACKAGE) + 1 :]}:{frame.f_lineno}"
