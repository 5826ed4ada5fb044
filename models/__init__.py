"""Everything that touches weights: the vLLM and DeepSpeed programs, their configuration, the embedded tiny model."""
