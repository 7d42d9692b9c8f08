"""Networks that are graphs: ONNX files, read, run and brought into the form that bundles keep.

A bundle's `model.onnx` has one input, float32 N x C x H x W of normalised RGB or grey pixels, and one output, float32
N x K logits. N is open or a number. Everything is in the one file. `editing` brings other graphs to this form.
"""
