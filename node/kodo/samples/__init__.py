"""Flows that run anywhere: `kodo.samples.atlas` needs no model and no key. `scope.yaml` offers them."""
