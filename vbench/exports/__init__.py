"""Whether a model can be deployed: its graph by torch.export, and files for AOTInductor and for ONNX."""
