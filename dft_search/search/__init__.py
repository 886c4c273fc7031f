"""Studies: what is searched, how trials are drawn, run, recorded, resumed and confirmed."""
