"""The randomness of a sample: uniforms that depend on its seed and on the position, and on nothing else."""

import numpy as np
import numpy.typing as npt


def uniforms(seed: int, count: int) -> npt.NDArray[np.float64]:
    """Return `count` numbers in [0, 1), the first ones of the Philox 4x64 stream whose key is the 64-bit seed.

    Philox is counter-based: a longer request begins with the same numbers. (Salmon et al. 2011)
    """
    return np.random.Generator(np.random.Philox(key=seed)).random(count)
