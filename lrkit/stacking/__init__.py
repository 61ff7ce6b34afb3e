"""Trainings that differ in rates, weight decay or seed alone, as one program over stacked weights."""
