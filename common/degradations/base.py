"""Base classes of degradations: shapes, affines, precision, and the contract of ``forward`` and ``adjoint``."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from monai.data import MetaTensor
from torch import Tensor, nn

SPATIAL_DIMS = 3

_Affine = TypeVar("_Affine", np.ndarray, Tensor)


def remove_metadata(volume: Tensor) -> Tensor:
    """Remove meta data, which would slow down every operation."""
    return volume.as_tensor() if isinstance(volume, MetaTensor) else volume


class Degradation(nn.Module):
    r"""Turns a high-resolution (HR) volume into a low-resolution (LR) one, and gives the positions of LR voxels.

    .. math:: x_{\mathrm{lr}} = A\,x_{\mathrm{hr}}, \qquad \langle A x, y\rangle = \langle x, A^T y\rangle

    Volumes are tensors ``(..., X, Y, Z)`` with any leading dimensions (channel, batch). LR voxel ``i`` is centred on
    HR voxel ``factor * i + offset`` of each axis. The affines follow from this.

    Half-precision volumes are computed in float32 and returned in their own dtype; integers are returned as float32. A
    ``MetaTensor`` is returned as a ``MetaTensor`` with the affine of its new grid.

    Subclasses implement ``_degrade`` and, if the operator is linear, ``_adjoint``.

    Args:
        factors: HR voxels per LR voxel along each spatial axis, three positive integers. If the operator sets
            ``whole_factors = False``, three numbers of at least 1.
        offset: centre of LR voxel 0 along each spatial axis, in HR voxels, counted from the centre of HR voxel 0.
    """

    is_linear: bool = True
    whole_factors: bool = True

    def __init__(
        self, factors: Sequence[float] | np.ndarray = (1, 1, 1), offset: Sequence[float] | np.ndarray = (0.0, 0.0, 0.0)
    ) -> None:
        super().__init__()
        self.factors = _check_factors(factors, type(self).__name__, self.whole_factors)
        self.offset: tuple[float, ...] = tuple(float(o) for o in offset)

    def commutes_with_rotations(self) -> bool:
        """Whether mirroring or turning a volume in plane mirrors or turns its LR volume in the same way.

        This is tested on noise. It needs LR voxels in the middle of their HR voxels, the same blur along both axes in
        plane, and no randomness.
        """
        if self.factors[0] != self.factors[1]:
            return False
        size = [max(1, math.floor(n * f + 0.5)) for n, f in zip((8, 8, 4), self.factors, strict=True)]
        hr = torch.rand(1, *size, generator=torch.Generator().manual_seed(0))
        lr = self(hr)
        return all(
            torch.allclose(self(transform(hr)), transform(lr), atol=1e-4)
            for transform in (lambda volume: volume.flip(1), lambda volume: volume.rot90(1, (1, 2)))
        )

    def forward(self, hr: Tensor) -> Tensor:
        """Degrade a volume.

        Args:
            hr: volume ``(..., X, Y, Z)``; each size is a multiple of its factor, if that is whole.

        Returns:
            Volume ``(..., X / f0, Y / f1, Z / f2)``; sizes are rounded if a factor is not whole.
        """
        self._check_volume(hr)
        self.compute_lr_size(hr.shape[-SPATIAL_DIMS:])
        return self._apply_operator(self._degrade, hr, self.compute_lr_affine)

    def adjoint(self, lr: Tensor) -> Tensor:
        """Apply the transpose of the operator, which is its gradient, not its inverse.

        Args:
            lr: volume ``(..., X, Y, Z)`` on the LR grid.

        Returns:
            Volume on the HR grid, of the size that :meth:`compute_hr_size` gives.
        """
        if not self.is_linear:
            raise TypeError(f"{type(self).__name__} has no adjoint: {self.explain_nonlinearity()}")
        self._check_volume(lr)
        return self._apply_operator(self._adjoint, lr, self.compute_hr_affine)

    def compute_lr_size(self, hr_size: Sequence[int]) -> tuple[int, ...]:
        """Voxels of the LR volume along each axis: HR voxels over the factor, rounded if the factor is not whole."""
        sizes = []
        for axis, (size, factor) in enumerate(zip(hr_size, self.factors, strict=True)):
            if size == 0 or (isinstance(factor, int) and size % factor):
                raise ValueError(
                    f"{type(self).__name__}: spatial axis {axis} has {size} voxels, which is not a positive multiple "
                    f"of its factor {factor}. Pad the volume first, e.g. with "
                    f"monai.transforms.DivisiblePad(k={self.factors}, method='end')."
                )
            sizes.append(max(1, math.floor(size / factor + 0.5)))
        return tuple(sizes)

    def compute_hr_size(self, lr_size: Sequence[int]) -> tuple[int, ...]:
        """Voxels of the HR volume along each axis: LR voxels times the factor, rounded if the factor is not whole."""
        return tuple(math.floor(size * factor + 0.5) for size, factor in zip(lr_size, self.factors, strict=True))

    def compute_lr_affine(self, hr_affine: _Affine) -> _Affine:
        """The voxel-to-world affine of the LR volume.

        Args:
            hr_affine: affine of the HR volume, ``(..., 4, 4)``, array or tensor.

        Returns:
            Affine ``(..., 4, 4)`` of the same kind, in float64: in float32 the round trip to the HR affine would have
            errors above 1e-6 mm a few centimetres from the isocentre.
        """
        lr_to_hr = np.diag([*self.factors, 1.0])
        lr_to_hr[:3, 3] = self.offset
        return _compose_affine(hr_affine, lr_to_hr)

    def compute_hr_affine(self, lr_affine: _Affine) -> _Affine:
        """The voxel-to-world affine of the HR volume, the exact inverse of :meth:`compute_lr_affine`."""
        hr_to_lr = np.diag([*(1.0 / f for f in self.factors), 1.0])
        hr_to_lr[:3, 3] = [-o / f for o, f in zip(self.offset, self.factors, strict=True)]
        return _compose_affine(lr_affine, hr_to_lr)

    def extra_repr(self) -> str:
        return f"factors={self.factors}, offset={self.offset}"

    def _degrade(self, hr: Tensor) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} must implement _degrade(hr) -> lr.")

    def _adjoint(self, lr: Tensor) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} must implement _adjoint(lr) -> hr, or set is_linear = False.")

    def explain_nonlinearity(self) -> str:
        """The reason, for messages, why the operator has no adjoint."""
        return "the operator is not linear."

    def _check_volume(self, volume: Tensor) -> None:
        if volume.ndim < SPATIAL_DIMS:
            raise ValueError(
                f"{type(self).__name__} expects a volume (..., X, Y, Z), got shape {tuple(volume.shape)}. "
                "Degradations act in three dimensions; give a 2-D image a third axis of size 1."
            )
        if volume.is_complex():
            raise TypeError(
                f"{type(self).__name__} expects a real volume, got {volume.dtype}. Take the magnitude or real part."
            )

    @staticmethod
    def _apply_operator(
        operator: Callable[[Tensor], Tensor], volume: Tensor, new_affine: Callable[[Tensor], Tensor]
    ) -> Tensor:
        plain = remove_metadata(volume)
        compute_dtype = torch.promote_types(plain.dtype, torch.float32)
        # A degradation defines the data: under autocast its matrix products would lose 16 of 24 bits.
        with torch.autocast(plain.device.type, enabled=False):
            result = operator(plain.to(compute_dtype))
        if plain.is_floating_point():
            result = result.to(plain.dtype)
        if not isinstance(volume, MetaTensor):
            return result
        result = MetaTensor(result).copy_meta_from(volume)
        result.affine = new_affine(volume.affine)
        return result


def _check_factors(factors: Sequence[float] | np.ndarray, owner: str, must_be_whole: bool) -> tuple[Any, ...]:
    expected = "three positive integers" if must_be_whole else "three numbers of at least 1"
    message = (
        f"{owner}: factors must be {expected}, one for each spatial axis, got {factors!r}. "
        "Write for example (2, 2, 1) for twice the voxel size in plane."
    )
    if isinstance(factors, str) or not isinstance(factors, Sequence | np.ndarray) or len(factors) != SPATIAL_DIMS:
        raise ValueError(message)
    kinds = int | np.integer if must_be_whole else int | float | np.number
    if any(isinstance(f, bool) or not isinstance(f, kinds) or not 1 <= f < math.inf for f in factors):
        raise ValueError(message)
    # (2 ** (1 / 3)) ** 3 is 2, whatever its last bit says.
    return tuple(round(f) if abs(f - round(f)) < 1e-9 else float(f) for f in factors)


def make_generator(seed: int, volume: Tensor) -> torch.Generator:
    """A generator of torch that depends on a seed and a volume only, not on the volume's batch or device."""
    # One 32-bit number for seed and volume: torch's CPU generator ignores the upper half of a longer seed.
    values: Any = volume.detach().cpu().contiguous().numpy()
    return torch.Generator().manual_seed(zlib.crc32(values, seed & 0xFFFFFFFF))


def _compose_affine(affine: _Affine, index_map: np.ndarray) -> _Affine:
    if isinstance(affine, Tensor):
        return affine.to(torch.float64) @ torch.as_tensor(index_map, device=affine.device)
    return np.asarray(affine, dtype=np.float64) @ index_map
