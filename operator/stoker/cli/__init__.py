"""``kubectl stoker``: what people do with Stoker by hand, over the API server and the gateway like anybody else."""
