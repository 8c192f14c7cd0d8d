"""How much memory a model needs, and with which settings it fits. Pure."""
