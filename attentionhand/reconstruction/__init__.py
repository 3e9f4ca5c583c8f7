"""3D hand reconstruction trained with generated pictures: what AttentionHand's pictures are for."""
