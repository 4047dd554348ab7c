"""From a trained run to what others use: weights, exports, figures of what it does."""
