"""Samples -> density -> modes. This package knows nothing of networks.

``_adaptive_kde`` is the public function. It makes histograms (``_working_grids``, steps 1 to 3 of
the method) and cuts them into ``_blocks``, which the engine that ``_engine`` chooses estimates.
``_torch_engine`` is the reference: ``_local_costs`` (steps 4 and 5), ``_windows`` and ``_balloon``
(step 6) and ``_stiffness_search`` (step 7). ``_numba_engine`` does the same as machine code for
CPUs, with ``_numba_kernels`` and, on long grids, ``_numba_scale_space``. ``_modes`` counts modes.
"""

from captum_advise.density._adaptive_kde import AdaptiveKDE, adaptive_kde
from captum_advise.density._modes import count_modes

__all__ = ["AdaptiveKDE", "adaptive_kde", "count_modes"]
