"""Where work runs: processes, Dask, threads of BLAS."""
