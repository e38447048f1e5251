"""How far readers agree beyond chance, and how sure a share of people is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def compute_cohen_kappa(
    first: Sequence[int] | np.ndarray, second: Sequence[int] | np.ndarray, categories: int, is_ordinal: bool = False
) -> float:
    """Cohen's kappa of two ratings of the same items: 1 for full agreement, 0 for that of chance.

    Args:
        first, second: a category of each item, from 0.
        categories: their number.
        is_ordinal: whether neighbours are a smaller disagreement: weights fall linearly with the distance.

    Returns:
        Kappa; NaN without items, and where both gave all items one category, so that chance alone would agree.

    Source:
        Cohen, A coefficient of agreement for nominal scales, 1960; Weighted kappa, Psychological Bulletin 70(4), 1968.
    """
    observed = np.zeros((categories, categories))
    np.add.at(observed, (np.asarray(first, dtype=int), np.asarray(second, dtype=int)), 1)
    expected = np.outer(observed.sum(1), observed.sum(0)) / max(observed.sum(), 1)
    distance = abs(np.subtract.outer(np.arange(categories), np.arange(categories)))
    cost = distance if is_ordinal else distance > 0
    chance = (cost * expected).sum()
    return float(1 - (cost * observed).sum() / chance) if chance else float("nan")


def compute_fleiss_kappa(counts: np.ndarray) -> float:
    """Fleiss' kappa of any number of readers: 1 for full agreement, 0 for that of chance.

    Args:
        counts: of readers who gave an item a category, shape (items, categories), the same number for all items.

    Returns:
        Kappa; NaN without items, with fewer than two readers, and where all gave one category.

    Source:
        Fleiss, Measuring nominal scale agreement among many raters, Psychological Bulletin 76(5), 1971.
    """
    readers = int(counts[0].sum()) if len(counts) else 0
    if readers < 2:
        return float("nan")
    agreed = ((counts * (counts - 1)).sum(axis=1) / (readers * (readers - 1))).mean()
    chance = float((np.square(counts.sum(axis=0) / counts.sum())).sum())
    return float((agreed - chance) / (1 - chance)) if chance < 1 else float("nan")


def compute_wilson_interval(share: float, number: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share.

    Args:
        share: 0 to 1; also a mean of shares, for which the interval is not too narrow.
        number: of independent units, 1 or more.

    Source:
        Wilson, Probable inference, the law of succession, and statistical inference, JASA 22, 1927.
    """
    z = 1.959964
    middle = (share + z**2 / (2 * number)) / (1 + z**2 / number)
    half = z / (1 + z**2 / number) * np.sqrt(share * (1 - share) / number + z**2 / (4 * number**2))
    return max(0.0, round(float(middle - half), 9)), round(float(middle + half), 9)
