"""vLLM in a Python environment of the host, run by systemd: for machines that cannot run containers."""
