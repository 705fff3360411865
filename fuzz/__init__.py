"""Long runs of spoilt items, rasters and models against the promise that each is processed rightly or refused."""
