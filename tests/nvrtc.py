"""NVIDIA's runtime compiler by ctypes: what CuPy calls on a card, on machines without one."""

from __future__ import annotations

import ctypes
import re
from dataclasses import dataclass
from importlib import metadata

import pytest

AS_CUPY = "--device-as-default-execution-space"
"""What CuPy 14 adds to the options that it is given."""


@dataclass(frozen=True)
class Compiled:
    """What the compiler says of a program with one kernel."""

    log: str

    @property
    def registers(self) -> int:
        """Registers of a thread."""
        return int(re.findall(r"Used (\d+) registers", self.log)[0])

    @property
    def spilled(self) -> int:
        """Bytes of registers that a thread stores to memory and loads again."""
        return sum(int(number) for number in re.findall(r"(\d+) bytes spill", self.log))


class Nvrtc:
    """The library of the package nvidia-cuda-nvrtc; tests are skipped where it is not installed."""

    def __init__(self) -> None:
        try:
            files = metadata.files("nvidia-cuda-nvrtc") or []
        except metadata.PackageNotFoundError:
            pytest.skip("no NVRTC on this machine; pip install 'hpcspin[test]' brings it")
        self._library = ctypes.CDLL(next(str(file.locate()) for file in files if file.name.startswith("libnvrtc.so")))

    def compile(self, code: str, options: tuple[str, ...], architecture: str) -> Compiled:
        """Machine code for an architecture such as ``"sm_90"``; a failure or a warning fails the test."""
        program, call = ctypes.c_void_p(), self._library
        assert call.nvrtcCreateProgram(ctypes.byref(program), code.encode(), b"source.cu", 0, None, None) == 0
        given = [option.encode() for option in (*options, f"-arch={architecture}", AS_CUPY, "--ptxas-options=-v")]
        failure = call.nvrtcCompileProgram(program, len(given), (ctypes.c_char_p * len(given))(*given))
        size = ctypes.c_size_t()
        call.nvrtcGetProgramLogSize(program, ctypes.byref(size))
        log = ctypes.create_string_buffer(size.value)
        call.nvrtcGetProgramLog(program, log)
        call.nvrtcDestroyProgram(ctypes.byref(program))
        text = log.value.decode()
        assert failure == 0, text
        assert "warning" not in text, text
        return Compiled(text)
