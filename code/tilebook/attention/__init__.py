"""Attention: softmax(q k^T) v without the scores ever being written."""
