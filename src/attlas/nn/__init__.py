"""Attention to be trained: a multi-head layer whose pattern is a choice, and a small decoder made of such layers."""

from attlas.nn.attention import MultiHeadAttention as MultiHeadAttention
from attlas.nn.cache import KeyValueCache as KeyValueCache
from attlas.nn.decoder import Decoder as Decoder

__all__ = ["Decoder", "KeyValueCache", "MultiHeadAttention"]
