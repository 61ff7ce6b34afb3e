"""`lrkit compare`: which setting of a sweep is best, by how much, as tables, pictures and a page. No torch."""
