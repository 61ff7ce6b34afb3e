"""From a config to the objects of a training: data, module, optimizers and the user's callbacks."""
