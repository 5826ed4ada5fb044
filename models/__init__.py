"""Everything that touches weights: the vLLM and DeepSpeed programs, their configs, the embedded tiny model."""
