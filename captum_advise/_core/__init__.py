"""What the classes are made of, in the order in which it runs.

``arguments`` and ``setup`` check; ``layer_pass`` runs the model once; ``targets`` says which output
is meant; ``grad_cam`` gives what units contribute; ``unit_choice`` groups units and chooses;
``masked_model`` and ``scoring`` apply the protocol to masked inputs. ``gated_map`` and
``occlusion_evidence`` make the map of several layers. ``setting_warnings`` words the warnings.
"""
