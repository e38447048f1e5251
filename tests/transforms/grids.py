"""Grids of voxels in the world, scans on them, and what a call warns of."""

import itertools
import warnings

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor
from scipy.spatial.transform import Rotation

from common.transforms import LoadScand, RestoreVolumed, SaveVolumed

ORIENTATIONS = ["".join(c) for axes in itertools.permutations(["RL", "AP", "SI"]) for c in itertools.product(*axes)]


def along(codes, values):
    """Of three values, along LR, AP and SI, those of axes that point as ``codes`` say."""
    return tuple(values["LRAPSI".index(code) // 2] for code in codes)


def affine_of(codes, spacing, tilt=(0, 0, 0), middle=(0, 0, 0), size=(1, 1, 1)):
    """Axes point as ``codes`` say, tilted by degrees; the middle of a volume of this size lies at ``middle``."""
    orientation = nib.orientations.axcodes2ornt(codes)
    affine = np.diag([0.0, 0.0, 0.0, 1.0])
    affine[orientation[:, 0].astype(int), range(3)] = orientation[:, 1] * np.array(spacing)
    affine[:3, :3] = Rotation.from_euler("xyz", tilt, degrees=True).as_matrix() @ affine[:3, :3]
    affine[:3, 3] = np.array(middle) - affine[:3, :3] @ ((np.array(size) - 1) / 2)
    return affine


def world_of(affine, size):
    """The place of each voxel, ``(X, Y, Z, 3)``."""
    index = np.stack(np.meshgrid(*map(np.arange, size), indexing="ij"), axis=-1)
    return index @ np.asarray(affine)[:3, :3].T + np.asarray(affine)[:3, 3]


def index_of(world, affine):
    """The voxels, with fractions, that lie at points ``(..., 3)``."""
    return (world - np.asarray(affine)[:3, 3]) @ np.linalg.inv(np.asarray(affine)[:3, :3]).T


def centre_of_mass(voxels, affine):
    return (world_of(affine, voxels.shape) * voxels[..., None]).sum((0, 1, 2)) / voxels.sum()


def scan_of(voxels, affine, file="/d/scan.nii.gz"):
    return MetaTensor(torch.as_tensor(voxels)[None], affine=affine, meta={"filename_or_obj": file})


def rician(voxels, sigma, seed=0):
    """With the noise of a magnitude image."""
    real, imaginary = sigma * np.random.default_rng(seed).normal(size=(2, *voxels.shape))
    return np.hypot(voxels + real, imaginary)


def zero_filled(volume, sizes):
    """Interpolated as a scanner does it: complex, with zeros around what was acquired of k-space."""
    for axis, (n, larger) in enumerate(zip(volume.shape, sizes, strict=True)):
        k_space = np.fft.fftshift(np.fft.fft(volume, axis=axis), axes=axis)
        before = larger // 2 - n // 2
        pad = [(before, larger - n - before) if a == axis else (0, 0) for a in range(3)]
        volume = np.fft.ifft(np.fft.ifftshift(np.pad(k_space, pad), axes=axis), axis=axis) * (larger / n)
    return volume


def stored_as(image, codes):
    """An image of R, A, S order with its axes stored in another order and direction."""
    orientation = nib.orientations.axcodes2ornt(codes)
    return image.as_reoriented(nib.orientations.ornt_transform([[0, 1], [1, 1], [2, 1]], orientation))


def doubled(volume):
    """Each voxel becomes 2x2x2: interpolation that is in place where LR voxels are blocks of HR voxels."""
    return volume.repeat_interleave(2, -3).repeat_interleave(2, -2).repeat_interleave(2, -1)


def super_resolve(path, folder, degradation, network=doubled, slice_axis="SI"):
    """What a network makes of a scan, from file to file as inference does."""
    scan = LoadScand("image", slice_axis)({"image": str(path)})["image"]
    entry = {"image": scan, "pred": network(scan.as_tensor())}
    return nib.load(SaveVolumed("pred", folder)(RestoreVolumed("pred", "image", degradation)(entry))["saved_to"])


def warned(call):
    """What a call returns, and the messages of its warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = call()
    return result, [str(w.message) for w in caught if not issubclass(w.category, DeprecationWarning)]


def told(call, *words):
    """What a call returns that warns once, in a message with these words; without words it must not warn."""
    result, messages = warned(call)
    assert len(messages) == bool(words) and all(str(word) in messages[0] for word in words), messages
    return result
