"""Hands in pictures: finding them, cropping to them, their fingers, their surface."""
