"""Where and in what a member computes: devices, number types, and the member on one device."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import torch

from rdsearch.errors import InputError
from rdsearch.esm2 import Encoder, stream
from rdsearch.weights import Checkpoint

__all__ = ["DTYPES", "Model", "devices_named", "dtype_named", "out_of_memory"]

DTYPES = ("auto", "float32", "bfloat16", "float16")


class Model:
    """A member on one device: resident, or streamed layer by layer."""

    def __init__(
        self, checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype, streamed: bool
    ) -> None:
        self.checkpoint, self.device, self.dtype = checkpoint, device, dtype
        self._encoder = None if streamed else Encoder(checkpoint, device, dtype)

    def run(self, tokens: list[torch.Tensor]) -> list[torch.Tensor]:
        """Representations of each batch."""
        if self._encoder is None:
            return stream(self.checkpoint, tokens, self.device, self.dtype)
        return [self._encoder(batch) for batch in tokens]

    def run_exact(self, tokens: torch.Tensor) -> torch.Tensor:
        """Representations of a batch in float32, without a second copy of the member in memory."""
        return stream(self.checkpoint, [tokens], self.device, torch.float32)[0]


def devices_named(names: str) -> list[torch.device]:
    """Devices by name, each there."""
    if names == "auto":
        return [torch.device("cuda" if torch.cuda.is_available() else "cpu")]
    try:
        devices = [torch.device(name.strip()) for name in names.split(",")]
    except RuntimeError as error:
        raise InputError(
            f"there is no device {names!r}: expected auto, cpu, cuda, or cuda:0,cuda:1"
        ) from error
    for device in devices:
        count = torch.cuda.device_count() if device.type == "cuda" else 1
        if device.type not in ("cpu", "cuda") or (device.index or 0) >= count:
            raise InputError(
                f"device {device} is not there: this machine has the cpu and "
                f"{torch.cuda.device_count()} CUDA devices that torch can use"
            )
    if len(set(devices)) < len(devices):
        raise InputError(f"each device can be named once; found {names}")
    return devices


def dtype_named(name: str, devices: Sequence[torch.device]) -> torch.dtype:
    """The type to compute in."""
    if name not in DTYPES:
        raise InputError(f"there is no dtype {name!r}; choose from {', '.join(DTYPES)}")
    if name != "auto":
        dtype: torch.dtype = getattr(torch, name)
        return dtype
    if devices[0].type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if native else torch.float16
    return torch.bfloat16 if _cpu_has_bfloat16() else torch.float32


def _cpu_has_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 matrices itself; emulation is slower."""
    with suppress(OSError):
        return bool({"amx_bf16", "avx512_bf16"} & set(Path("/proc/cpuinfo").read_text().split()))
    return False


def out_of_memory(error: BaseException) -> bool:
    """Whether the error says that memory ran out; torch has no one class for it on CPUs."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        "allocate memory" in str(error) or "not enough memory" in str(error)
    )
