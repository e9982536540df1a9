"""ViR's released default: softmax over scores that a decay mask multiplied. The equations: README.md here."""
