"""Tests of slots share one Ray a module."""

from tests.ray_cluster import ray_cluster

__all__ = ["ray_cluster"]
