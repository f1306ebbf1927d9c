"""Independent loops for resizing, blur and colour: slow, obvious, float64."""

import colorsys

import numpy as np


def synth(height: int, width: int, seed: int) -> np.ndarray:
    """The goldens' picture: a gradient with noise, uint8 (their README, preprocess/)."""
    rs = np.random.RandomState(seed)
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    ramps = [x * 255 / (width - 1), y * 255 / (height - 1), (x + y) * 255 / (height + width - 2)]
    noisy = np.stack(ramps, -1) + rs.normal(0, 20, (height, width, 3))
    return np.clip(np.rint(noisy), 0, 255).astype(np.uint8)


def cubic(t: float, a: float) -> float:
    """Keys' cubic convolution kernel."""
    t = abs(t)
    if t <= 1:
        return (a + 2) * t**3 - (a + 3) * t**2 + 1
    return a * (t**3 - 5 * t**2 + 8 * t - 4) if t < 2 else 0.0


def resize_axis(image: np.ndarray, size: int, style: str) -> np.ndarray:
    """Cubic interpolation of the first axis, docs/official-code.md#bicubic."""
    length = len(image)
    out = np.zeros((size, *image.shape[1:]))
    for i in range(size):
        at = i * length / size if style == "tf1" else (i + 0.5) * length / size - 0.5
        near = [int(np.floor(at)) + k for k in (-1, 0, 1, 2)]
        weights = np.array([cubic(at - k, -0.75 if style == "tf1" else -0.5) for k in near])
        if style == "tf2":  # neighbours outside do not count
            weights = np.where([0 <= k < length for k in near], weights, 0)
            weights /= weights.sum()
        for k, weight in zip(near, weights, strict=True):
            out[i] += weight * image[min(max(k, 0), length - 1)]
    return out


def resize(image: np.ndarray, height: int, width: int, style: str) -> np.ndarray:
    rows = resize_axis(image.astype(np.float64), height, style)
    return resize_axis(rows.transpose(1, 0, 2), width, style).transpose(1, 0, 2)


def blur(image: np.ndarray, sigma: float, kernel_size: int) -> np.ndarray:
    """Every pixel the weighted sum of its neighbours, black outside."""
    radius = int(kernel_size / 2)
    line = np.exp(-(np.arange(-radius, radius + 1.0) ** 2) / (2 * sigma**2))
    line /= line.sum()
    height, width, _ = image.shape
    out = np.zeros(image.shape)
    for y in range(height):
        for x in range(width):
            for dy in range(-radius, radius + 1):
                for dx in range(-radius, radius + 1):
                    if 0 <= y + dy < height and 0 <= x + dx < width:
                        out[y, x] += line[dy + radius] * line[dx + radius] * image[y + dy, x + dx]
    return out


def in_hsv(image: np.ndarray, change) -> np.ndarray:
    """`change` of (hue, saturation, value) for each pixel."""
    pixels = [colorsys.hsv_to_rgb(*change(*colorsys.rgb_to_hsv(*p))) for p in image.reshape(-1, 3).astype(float)]
    return np.array(pixels).reshape(image.shape)


def contrast(image: np.ndarray, factor: float) -> np.ndarray:
    mean = image.astype(np.float64).mean((0, 1))
    return (image - mean) * factor + mean


def luma(image: np.ndarray) -> np.ndarray:
    grey = image.astype(np.float64) @ np.array([0.2989, 0.5870, 0.1140])
    return np.repeat(grey[..., None], 3, -1)
