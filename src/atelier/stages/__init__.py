"""The steps of the pipeline, one module each, run by DVC as `python -m atelier <stage> <name>`."""
