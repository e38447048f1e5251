"""Images whose quality is known."""

import numpy as np
from scipy.ndimage import gaussian_filter


def picture(seed, blur=0.0, size=64):
    """An object with edges, shading and texture in dark air, blurred by so many pixels, and a little noise on it."""
    rng = np.random.default_rng(seed)
    field = gaussian_filter(rng.normal(size=(size, size)), 4, mode="wrap")
    texture = gaussian_filter(rng.normal(size=(size, size)), 0.7, mode="wrap")
    radius = np.hypot(*np.meshgrid(*[np.linspace(-1, 1, size)] * 2))
    image = np.where(radius < 0.8, np.where(field > 0, 0.75, 0.4) + 0.05 * texture, 0.0)
    return np.clip(gaussian_filter(image, blur) + 0.005 * rng.normal(size=image.shape), 0, 1)
