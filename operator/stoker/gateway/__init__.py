"""What stands beside Envoy in a gateway's pods: it decides, answers what is not an engine's to answer, and writes Envoy's files."""
