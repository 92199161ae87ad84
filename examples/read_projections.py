"""What a real model's heads look for and pass on, read off their weights, with the proof that they are the model's."""

import attlas

language_model = attlas.load("smollm2-135m")
P = attlas.projections(language_model)
print(f"{P}: {P.counts()}")
print(f"they make the model's own queries, keys and values: worst relative error {max(P.verify().values()):.1e}")

head = P[16, 0]
rows, columns = head.qk.shape
print(f"\n{head}")
print(f"QK is {rows} × {columns}, and of effective rank {head.qk.effective_rank():.1f} of {head.qk.width}")
print(f"OV has effective rank {head.ov.effective_rank():.1f}; its largest singular value is {head.ov.svdvals()[0]:.2f}")

# Which heads of later layers are found by what this head writes?
composed = P.composition("k")
print(f"\nstrongest K-compositions of layer 16, head 0; two unrelated heads would have {composed.chance:.3f}:")
scores = composed[16, 0]
for rank in scores.flatten().argsort(descending=True)[:5].tolist():
    layer, number = divmod(rank, scores.shape[1])
    print(f"  into the keys of layer {layer:2d}, head {number}: {scores[layer, number]:.3f}")
