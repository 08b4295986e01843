"""Explanation methods under one interface: a model, a layer, inputs and classes to maps."""
