"""`lrkit find`: range tests, the analysis of their curves, and short runs that confirm a learning rate."""
