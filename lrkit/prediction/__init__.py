"""`lrkit predict`: an annealing law, fitted to the loss curves of finished runs, and its predictions. No torch."""
