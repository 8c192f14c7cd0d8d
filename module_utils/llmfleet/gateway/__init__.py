"""The gateway: nginx in front of all services, made from the inventory alone. Pure."""
