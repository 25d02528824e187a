"""Pure: from what was seen in the cluster to status and conditions."""
