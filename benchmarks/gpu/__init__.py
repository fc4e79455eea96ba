"""How much of a GPU the job uses, and how many decoding cores fill it; see `benchmarks.gpu.run`."""
