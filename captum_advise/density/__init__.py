"""Samples -> density -> modes. This package knows nothing of networks.

``_adaptive_kde`` is the public function, and ``_engine`` chooses what estimates. All engines make
histograms with ``_working_grids`` (steps 1 to 3 of the method), in ``_blocks`` of rows.
``_torch_engine`` is the reference: ``_local_costs`` (steps 4 and 5), ``_windows`` and ``_balloon``
(step 6) and ``_stiffness_search`` (step 7). ``_numba_engine`` does the same as machine code for
CPUs, with ``_numba_kernels`` and, on long grids, ``_numba_scale_space``; ``_triton_engine`` with
``_triton_kernel`` does it on GPUs, a row in each program. ``_modes`` counts modes.
"""

from captum_advise.density._adaptive_kde import AdaptiveKDE, adaptive_kde
from captum_advise.density._modes import count_modes

__all__ = ["AdaptiveKDE", "adaptive_kde", "count_modes"]
