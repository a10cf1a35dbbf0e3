"""The processes of a benchmark. `answering` is how each is told what to do; `framing` is what HTTP they speak."""
