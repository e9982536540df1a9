"""What the Triton forms share: how kernels are launched, two families of them, and which configuration is best."""
