"""How well a lesion can be detected: a channelised Hotelling observer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import rankdata

_HALF_WIDTH = 2.5  # of the patches, in widths of the widest channel
_DRAWS = 500  # of sites, by bootstrap


class ChannelisedHotelling:
    r"""A linear observer of a few channels, which knows the lesion and the statistics of the tissue.

    The channels are differences of Gaussians in 3-D, so they do not see the mean of the tissue. Their values are
    divided by it, as contrasts are. With the mean difference :math:`s` and the covariance :math:`K` of the channels at
    sites without a lesion,

    .. math:: t = s^T K^{-1} v

    Scores are in standard deviations of the sites without a lesion, so those of several trainings can be pooled.

    Attributes:
        widths: standard deviations of the Gaussians in mm; a channel is the difference of two neighbours.

    Source:
        Myers and Barrett, JOSA A 4, 1987. The channels are those of Abbey and Barrett, JOSA A 18, 2001, in 3-D.
    """

    widths = (0.5, 0.8, 1.3, 2.1, 3.5)

    def __init__(self) -> None:
        self.template = self.mean = np.zeros(len(self.widths) - 1)
        self.deviation = 1.0

    def compute_channels(self, volume: np.ndarray, spacing: Sequence[float], sites: np.ndarray) -> np.ndarray:
        """Values of the channels at places of a volume.

        Args:
            volume: ``(X, Y, Z)``, any units; beyond its border it is repeated.
            spacing: in mm, (3,).
            sites: indices of voxels, ``(N, 3)``.

        Returns:
            ``(N, C)``, in parts of the mean around each site.
        """
        half = [int(np.ceil(_HALF_WIDTH * self.widths[-1] / step)) for step in spacing]
        distances = [np.arange(-n, n + 1) * step for n, step in zip(half, spacing, strict=True)]
        squared = sum(r**2 for r in np.meshgrid(*distances, indexing="ij"))
        gaussians = [np.exp(-squared / (2 * width**2)).ravel() for width in self.widths]
        blurs = np.stack([gaussian / gaussian.sum() for gaussian in gaussians], axis=1).astype(np.float32)
        padded = np.pad(volume, [(n, n) for n in half], mode="edge")
        size = [2 * n + 1 for n in half]
        patches = (padded[tuple(map(slice, site, site + size))].reshape(-1) for site in np.asarray(sites))
        means = np.array([patch @ blurs for patch in patches], dtype=np.float64).reshape(-1, len(self.widths))
        return -np.diff(means, axis=1) / np.maximum(means[:, -1:], 1e-12)

    def fit(self, absent: np.ndarray, signal: np.ndarray) -> ChannelisedHotelling:
        """Learn the template.

        Args:
            absent: channels at sites without a lesion, ``(N, C)``; more than C sites.
            signal: mean difference that the lesion makes, ``(C,)``.
        """
        self.mean = absent.mean(axis=0)
        covariance = np.cov(absent, rowvar=False)
        self.template = np.linalg.lstsq(covariance, signal, rcond=1e-10)[0]
        self.deviation = float(np.sqrt(self.template @ covariance @ self.template)) or 1.0
        return self

    def score(self, channels: np.ndarray) -> np.ndarray:
        """Scores ``(N,)`` of channels ``(N, C)``; higher where a lesion is more likely."""
        return (channels - self.mean) @ self.template / self.deviation


def compute_auc(absent: np.ndarray, present: np.ndarray) -> float:
    """Area under the ROC curve of scores without and with a lesion: how often the one with a lesion is higher."""
    ranks = rankdata(np.concatenate([present, absent]))[: len(present)]
    return float((ranks.sum() / len(present) - (len(present) + 1) / 2) / len(absent))


def estimate_auc_deviation(absent: np.ndarray, present: np.ndarray) -> float:
    """Standard deviation of :func:`compute_auc` when sites are drawn again, with replacement."""
    random = np.random.default_rng(0)
    drawn = ([random.choice(each, len(each)) for each in (absent, present)] for _ in range(_DRAWS))
    return float(np.std([compute_auc(*each) for each in drawn]))
