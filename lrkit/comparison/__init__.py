"""`lrkit compare`: ranks the settings of a sweep and writes tables, figures and an HTML page. No torch."""
