"""One model of each family that people choose between: what `--models field` names. Reading it imports no torch."""

from __future__ import annotations

NAME = "field"
TIMM = {  # models of timm that recurrent backbones are compared with, of 22 to 29 million parameters: what each is
    "timm/vit_small_patch16_rope_mixed_224": "a plain ViT with learned rotary positions",
    "timm/xcit_small_12_p16_224": "attention over channels, linear in tokens",
    "timm/efficientvit_b2": "linear attention with ReLU, and convolutions",
    "timm/mambaout_tiny": "Mamba's gated blocks without its scan",
    "timm/convnext_tiny": "convolutions alone",
}
FIELD = (
    *("vig_t", "vrwkv_t", "vil2_t", "vir_s", "vision_gru_t", "vim_t", "vmamba_t", "mlla_t"),
    *("deit_t", "deit_s", "swin_t"),
    *TIMM,
)
