"""Collections of radiographs, prepared: NIH's, SIIM's, tables of one's own, made up ones."""
