"""One benchmark over several data sets: a suite of tasks x backbones x probes, extracted, probed, compared."""
