"""AttentionHand: hand images controlled by a text and a hand mesh (Park et al., ECCV 2024)."""
