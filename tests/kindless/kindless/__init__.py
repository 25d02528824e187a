"""One-node Kubernetes clusters for tests, from Kubernetes' own components and without a container engine."""
