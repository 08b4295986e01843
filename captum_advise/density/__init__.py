"""Samples -> density -> modes. This package knows nothing of networks.

Order of the modules: ``_grid`` and ``_blocks`` (histograms on working grids), ``_local_costs``
(the optimal bandwidth around each point), ``_windows`` (bandwidths at a stiffness), ``_balloon``
(the density and its cost), ``_stiffness_search`` (the best stiffness) with the costs of
``_bandwidth_cache`` on a CPU and of ``_pointwise`` on a GPU,
``_estimate`` (these steps in order), ``_adaptive_kde`` (the public function), ``_modes``.
``_kernels`` and ``_scale_space`` do the steps from ``_local_costs`` on as machine code, where
``_engine`` finds numba; ``_compiled`` calls them.
"""

from captum_advise.density._adaptive_kde import AdaptiveKDE, adaptive_kde
from captum_advise.density._modes import count_modes

__all__ = ["AdaptiveKDE", "adaptive_kde", "count_modes"]
