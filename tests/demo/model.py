"""The demonstration model in plain PyTorch: InternViT blocks, pixel shuffle, projector, Qwen2 decoder.

The architecture is the published one of InternVL (class token, learned positions, pre-norm blocks
with layer scale and exact GELU, no final norm; pixel shuffle "v2"; LayerNorm - Linear - GELU -
Linear; Qwen2 with biases on q, k and v, grouped queries, RoPE in the half-rotation form, RMS norm,
SwiGLU), only small.  `tests/demo/parity.py` proves the equality with `transformers`.

`AuxHeads` exists in training only: it reads dense labels (what is drawn at this patch?) from the
vision tower and is dropped at export.
"""

import math

import torch
import torch.nn as nn
import torch.nn.functional as F


def attend(q, k, v, mask=None, causal=False):
    """Attention, [B, heads, N, d].  In training on a CPU it is written out: compiled, its backward pass takes a
    third of the time of the library's there."""
    if causal or q.is_cuda or not torch.is_grad_enabled():
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)
    q, k, v = (u.to(torch.bfloat16) for u in (q, k, v))
    a = torch.matmul(q * q.shape[-1] ** -0.5, k.transpose(-1, -2)).float()
    if mask is not None:
        a = torch.where(mask, a, -1e4)
    return torch.matmul(a.softmax(-1).to(v.dtype), v)


class VisionBlock(nn.Module):
    def __init__(self, c):
        super().__init__()
        d = c.v_hidden
        self.heads = c.v_heads
        self.norm1 = nn.LayerNorm(d, eps=1e-6)
        self.qkv = nn.Linear(d, 3 * d)
        self.proj = nn.Linear(d, d)
        self.norm2 = nn.LayerNorm(d, eps=1e-6)
        self.fc1 = nn.Linear(d, c.v_ffn)
        self.fc2 = nn.Linear(c.v_ffn, d)
        self.ls1 = nn.Parameter(torch.ones(d))
        self.ls2 = nn.Parameter(torch.ones(d))

    def forward(self, t):
        b, n, d = t.shape
        q, k, v = self.qkv(self.norm1(t)).view(b, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        a = attend(q, k, v).transpose(1, 2).reshape(b, n, d)
        t = t + self.ls1 * self.proj(a)
        return t + self.ls2 * self.fc2(F.gelu(self.fc1(self.norm2(t))))


class Vision(nn.Module):
    """Normalised pixels [B, 3, S, S] -> patch states [B, grid*grid, v_hidden] (class token dropped)."""

    def __init__(self, c):
        super().__init__()
        self.c = c
        d, n = c.v_hidden, c.grid**2
        self.class_embedding = nn.Parameter(torch.randn(d) * 0.02)
        self.position = nn.Parameter(torch.zeros(n + 1, d))
        self.patch = nn.Linear(3 * c.patch**2, d)
        self.blocks = nn.ModuleList(VisionBlock(c) for _ in range(c.v_layers))
        # Positions start as two-dimensional sines, which a small tower need not find out by itself.
        q = d // 4
        freq = torch.exp(-torch.arange(q) / q * 4.0)
        pos = torch.arange(c.grid).float()[:, None] * freq * 1.5
        wave = torch.cat([pos.sin(), pos.cos()], 1)
        grid = torch.cat([wave[:, None].expand(-1, c.grid, -1), wave[None].expand(c.grid, -1, -1)], 2)
        with torch.no_grad():
            self.position[1:] = 0.7 * grid.reshape(n, d)

    def forward(self, x):
        c = self.c
        b = x.shape[0]
        rows = x.view(b, 3, c.grid, c.patch, c.grid, c.patch).permute(0, 2, 4, 1, 3, 5)
        e = self.patch(rows.reshape(b, c.grid**2, -1))
        t = torch.cat([self.class_embedding.to(e.dtype).expand(b, 1, -1), e], 1) + self.position
        for block in self.blocks:
            t = block(t)
        return t[:, 1:]


class Projector(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c = c
        self.norm = nn.LayerNorm(4 * c.v_hidden, eps=1e-5)
        self.fc1 = nn.Linear(4 * c.v_hidden, c.hidden)
        self.fc2 = nn.Linear(c.hidden, c.hidden)

    def forward(self, t):
        b, g, d = t.shape[0], self.c.grid // 2, t.shape[2]
        t = t.view(b, g, 2, g, 2, d).permute(0, 1, 3, 2, 4, 5).reshape(b, g * g, 4 * d)
        return self.fc2(F.gelu(self.fc1(self.norm(t))))


class RMSNorm(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(d))

    def forward(self, x):
        return F.rms_norm(x, (x.shape[-1],), self.weight, 1e-6)


class DecoderBlock(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c = c
        d, kv = c.hidden, c.kv_heads * c.head_dim
        self.norm1 = RMSNorm(d)
        self.q = nn.Linear(d, d)
        self.k = nn.Linear(d, kv)
        self.v = nn.Linear(d, kv)
        self.o = nn.Linear(d, d, bias=False)
        self.norm2 = RMSNorm(d)
        self.gate = nn.Linear(d, c.ffn, bias=False)
        self.up = nn.Linear(d, c.ffn, bias=False)
        self.down = nn.Linear(c.ffn, d, bias=False)

    def forward(self, h, cos, sin, mask):
        c = self.c
        b, n, d = h.shape
        x = self.norm1(h)
        q = self.q(x).view(b, n, c.heads, -1)
        k = self.k(x).view(b, n, c.kv_heads, -1)
        v = self.v(x).view(b, n, c.kv_heads, -1)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        r = c.heads // c.kv_heads
        k, v = k.repeat_interleave(r, 2), v.repeat_interleave(r, 2)
        q, k, v = (u.transpose(1, 2) for u in (q, k, v))
        a = attend(q, k, v, mask, mask is None)
        h = h + self.o(a.transpose(1, 2).reshape(b, n, d))
        x = self.norm2(h)
        return h + self.down(F.silu(self.gate(x)) * self.up(x))


def waves(c):
    """Starts the patch embedding as a cosine transform: strokes of lightness, and some coarse colour."""
    p = c.patch
    x = (torch.arange(p) + 0.5) * math.pi / p
    cos = torch.stack([torch.cos(k * x) * (2 / p) ** 0.5 * (0.5**0.5 if k == 0 else 1) for k in range(p)])
    pairs = sorted(((u, v) for u in range(p) for v in range(p)), key=lambda f: f[0] ** 2 + f[1] ** 2)
    mix = torch.tensor([[0.45, 0.55, 0.25], [1.0, -1.0, 0.0], [0.5, 0.5, -1.0]])
    few = (c.v_hidden - 8) // 16  # waves of each of the two colour differences; the rest is lightness
    plan = [(m, f) for m, n in ((1, few), (2, few), (0, c.v_hidden - 2 * few)) for f in pairs[:n]]
    rows = []
    for m, (u, v) in plan:
        gain = 0.12 * (1 + 0.9 * (u + v))
        rows.append((gain * mix[m][:, None, None] * torch.outer(cos[u], cos[v])).flatten())
    turn = torch.linalg.qr(torch.randn(c.v_hidden, c.v_hidden)).Q  # spreads them over all channels
    return turn @ torch.stack(rows)


@torch.no_grad()
def look_around(block, c, reach):
    """Starts the heads of a vision block with local attention, as a convolution has it.

    Head h looks `reach` patches up, down, left or right: its keys are waves of the position code and
    its queries the same waves, turned by the offset.  Found by training alone, this takes long.
    """
    d, q = c.v_hidden, c.v_hidden // 4
    hd = d // c.v_heads
    n = hd // 4  # waves per axis
    freq = torch.exp(-torch.arange(q) / q * 4.0) * 1.5
    pick = torch.linspace(0, q * (0.45 + 0.1 * reach), n).long()
    for h in range(c.v_heads):
        offset = [(-reach, 0.0), (reach, 0.0), (0.0, -reach), (0.0, reach)][h % 4]
        rows = block.qkv.weight[h * hd : (h + 1) * hd], block.qkv.weight[d + h * hd : d + (h + 1) * hd]
        for m in rows:
            m.mul_(0.3)
        for axis in range(2):
            for j, i in enumerate(pick.tolist()):
                r, s, k = 2 * (axis * n + j), axis * 2 * q + i, axis * 2 * q + q + i
                turn = float(freq[i]) * offset[axis]
                rows[1][r, s] = rows[1][r + 1, k] = 2.5
                rows[0][r, s] = rows[0][r + 1, k] = 2.5 * math.cos(turn)
                rows[0][r, k], rows[0][r + 1, s] = 2.5 * math.sin(turn), -2.5 * math.sin(turn)


def rotate(u, cos, sin):
    """RoPE, half rotation; u [B, N, heads, d], cos and sin [B or 1, N, 1, d/2]."""
    a, b = u.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


class PocketVL(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c = c
        self.vision = Vision(c)
        self.projector = Projector(c)
        self.embed = nn.Embedding(c.vocab, c.hidden)
        self.blocks = nn.ModuleList(DecoderBlock(c) for _ in range(c.layers))
        self.norm = RMSNorm(c.hidden)
        self.head = nn.Linear(c.hidden, c.vocab, bias=False)
        inv = c.rope_theta ** (-torch.arange(0, c.head_dim, 2).float() / c.head_dim)
        angle = torch.arange(c.context).float()[:, None] * inv
        self.register_buffer("cos", angle.cos(), persistent=False)
        self.register_buffer("sin", angle.sin(), persistent=False)
        self.init()

    def init(self):
        for name, p in self.named_parameters():
            if p.dim() == 2 and "position" not in name:
                nn.init.trunc_normal_(p, std=0.5 * (2.0 / sum(p.shape)) ** 0.5 * 1.4)
            elif name.endswith("bias"):
                nn.init.zeros_(p)
        nn.init.normal_(self.embed.weight, std=0.1)
        self.vision.patch.weight.data.copy_(waves(self.c))
        for block in self.vision.blocks:
            for m in (block.proj, block.fc2):
                m.weight.data.mul_((2 * self.c.v_layers) ** -0.5)
        for block in self.blocks:
            for m in (block.o, block.down):
                m.weight.data.mul_((2 * self.c.layers) ** -0.5)
        for b, reach in enumerate((1.0, 1.0, 2.0, 3.0)[: self.c.v_layers - 2]):
            look_around(self.vision.blocks[b], self.c, reach)

    def see(self, pixels):
        """Patch states and visual tokens of normalised pixels."""
        patches = self.vision(pixels)
        return patches, self.projector(patches)

    def decode(self, ids, visual, at, positions, mask):
        """Final hidden states.  visual [B, tokens, D] replaces the rows ids[:, at:at+tokens]."""
        h = self.embed(ids)
        if visual is not None:
            h = torch.cat([h[:, :at], visual.to(h.dtype), h[:, at + visual.shape[1] :]], 1)
        cos, sin = self.cos[positions][:, :, None], self.sin[positions][:, :, None]
        for block in self.blocks:
            h = block(h, cos, sin, mask)
        return self.norm(h)


class AuxHeads(nn.Module):
    """Dense labels per patch, from one linear map over the normalised patch state."""

    def __init__(self, d, sizes):
        super().__init__()
        self.sizes = sizes
        self.norm = nn.LayerNorm(d)
        self.map = nn.Linear(d, sum(sizes.values()))

    def forward(self, t):
        parts = self.map(self.norm(t)).split(list(self.sizes.values()), -1)
        return dict(zip(self.sizes, parts))
