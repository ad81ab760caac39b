"""Sizes of the demonstration model (no PyTorch here: the processes that draw read it too)."""

from dataclasses import asdict, dataclass


@dataclass
class Config:
    """Every matrix input is a multiple of 32, the block of Q8_0."""

    image_size: int = 224
    patch: int = 14
    v_hidden: int = 192
    v_heads: int = 6
    v_ffn: int = 768
    v_layers: int = 8
    hidden: int = 192
    heads: int = 6
    kv_heads: int = 2
    ffn: int = 576
    layers: int = 6
    vocab: int = 1268
    rope_theta: float = 1e6
    context: int = 1024

    @property
    def grid(self):
        return self.image_size // self.patch

    @property
    def tokens(self):
        """Visual tokens that the language model sees: a quarter of the patches."""
        return (self.grid // 2) ** 2

    @property
    def head_dim(self):
        return self.hidden // self.heads

    def dict(self):
        return asdict(self)
