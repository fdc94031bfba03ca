"""A small world to draw: the street scenes of the demo (datasets/synthetic.py)."""
