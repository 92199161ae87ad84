"""Where captured tensors are put: memory, a device, or a folder on disk."""

from __future__ import annotations

import math
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from attlas.errors import StoreError


@dataclass(frozen=True)
class Keeper:
    """Makes copies that nothing else will write to.

    Parameters
    ----------
    device : torch.device
        Where copies live.
    dtype : torch.dtype, optional
        What q, k, values and output are converted to; their own by default.
    folder : Path, optional
        Where the files of memory-mapped copies lie. They are unlinked as soon as they are mapped, so nothing is left
        behind, whatever happens; the disk space is freed with the tensor.
    """

    device: torch.device
    dtype: torch.dtype | None = None
    folder: Path | None = field(default=None)

    def dtype_of(self, dtype: torch.dtype) -> torch.dtype:
        """Return the dtype in which a tensor of this dtype is kept."""
        return self.dtype or dtype

    def keep(self, tensor: Tensor) -> Tensor:
        """Return a contiguous copy, in the chosen dtype, that shares no memory with the model."""
        copy = self._room(tensor.shape, self.dtype_of(tensor.dtype))
        return copy.copy_(tensor.detach())

    def place(self, tensor: Tensor, *, convert: bool = True) -> Tensor:
        """Return the tensor on the device, in the chosen dtype if `convert`; copied only if it must be."""
        dtype = self.dtype_of(tensor.dtype) if convert else tensor.dtype
        return tensor.detach().to(self.device, dtype)

    def joined(self, tensors: list[Tensor]) -> Tensor:
        """Join tensors along the third axis."""
        shape = list(tensors[0].shape)
        shape[2] = sum(tensor.shape[2] for tensor in tensors)
        whole = self._room(torch.Size(shape), tensors[0].dtype)
        return torch.cat(tensors, dim=2, out=whole)

    def _room(self, shape: torch.Size, dtype: torch.dtype) -> Tensor:
        if self.folder is None or shape.numel() == 0:
            return torch.empty(shape, dtype=dtype, device=self.device)
        return _mapped(self.folder, shape, dtype)


def _mapped(folder: Path, shape: torch.Size, dtype: torch.dtype) -> Tensor:
    """Return an empty tensor in a file that has no name any more."""
    size = math.prod(shape) * dtype.itemsize
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".attlas-", dir=folder)
    except OSError as error:
        raise StoreError(f"disk: cannot write in {folder}: {error.strerror}; choose another folder") from error
    try:
        # Space is reserved first: a full disk is then an error here, and not a crash at some later write into the map.
        os.posix_fallocate(handle, 0, size)
        return torch.from_file(name, shared=True, size=math.prod(shape), dtype=dtype).view(shape)
    except OSError as error:
        raise StoreError(
            f"disk: cannot reserve {size:,} bytes in {folder}: {error.strerror}; free some space"
        ) from error
    finally:
        os.close(handle)
        os.unlink(name)
