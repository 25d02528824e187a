"""Writes what is derived from the code: CRDs, the chart's copies, RBAC, deploy/ and the reference pages."""
