"""WKV6, the attention of Vision-RWKV on RWKV-6. The equations and the forms: README.md here."""
