"""Read a real document with a real model, prove the capture, and find the heads that look farthest back."""

import inspect
import shlex

import attlas
from attlas.matrix import Distance, Received, ask

language_model = attlas.load("smollm2-135m")
cap = language_model.read(inspect.getsource(shlex))
print(f"{len(cap.tokens or [])} tokens, {len(cap)} layers; worst relative error {max(cap.verify().values()):.1e}")

reach = {}
received = 0.0
for layer in cap.layers:
    distance, mass = ask(cap[layer], Distance(), Received())  # one pass answers both
    reach.update({(layer, head): float(value) for head, value in enumerate(distance[0].mean(-1))})
    received += float(mass[0, :, 0].sum())

rows = sum(cap[layer].shape[1] * cap[layer].shape[2] for layer in cap.layers)
print(f"the first token alone receives {received / rows:.0%} of all attention")
for (layer, head), tokens in sorted(reach.items(), key=lambda item: -item[1])[:5]:
    print(f"layer {layer:2d}, head {head}: looks {tokens:.0f} tokens back on average")
