"""Declarative learning rates for PyTorch Lightning."""
