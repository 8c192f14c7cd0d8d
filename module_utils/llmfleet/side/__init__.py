"""Helper containers beside the engines, such as the gateway and the web UI: kept as they are declared."""
