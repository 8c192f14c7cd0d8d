"""Open WebUI as the inventory describes it. Pure."""
