"""Distributions of tasks, and families of them."""
