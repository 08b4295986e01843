"""What :class:`captum_advise.LayerAdvise` is made of.

``comparison`` calls the modules in this order: ``request``, ``layer_pass``, ``targets``,
``grad_cam``, ``selection`` with ``candidates``, ``perturbation``, ``scoring``, ``choice``.
``suspicions`` words the warnings about settings.
"""
