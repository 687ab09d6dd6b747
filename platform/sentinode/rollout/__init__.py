"""Rollouts on Kubernetes: a bundle or an image into KubeRay's RayService, proved or taken back. Owns ``kubernetes``."""
