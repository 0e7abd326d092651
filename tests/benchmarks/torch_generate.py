#!/usr/bin/env python3
"""Generation peer: one row, token by token, with the model of torch_peer.py and fresh weights.

As `memformer bench generate`: a prompt of one segment is encoded and the memory written; the
decoder predicts the next segment from a begin token on, each token drawn at temperature 0.8; a full
segment is encoded in turn. With a key-value cache (the default: keys and values of self-attention
are kept, those of cross-attention are computed once a segment) or, with --no-cache, by decoding the
begun segment again for each token. --check compares the logits of both ways and leaves.
Prints one JSON line. Needs only PyTorch (1.13 or newer) and torch_peer.py beside it.
"""
import argparse
import json
import pathlib
import sys
import time


def parse():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--dim", type=int, default=256)
    p.add_argument("--enc", type=int, default=2)
    p.add_argument("--dec", type=int, default=2)
    p.add_argument("--heads", type=int, default=8)
    p.add_argument("--seg", type=int, default=128)
    p.add_argument("--slots", type=int, default=32)
    p.add_argument("--tokens", type=int, default=512)
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--no-cache", action="store_true")
    p.add_argument("--check", action="store_true")
    return p.parse_args()


OWN = parse()
BEGIN, VOCABULARY = 256, 257
# The peer reads its options and sets threads when it is imported.
sys.argv = [sys.argv[0], "--vocab", str(VOCABULARY), "--batch", "1", "--attn", "auto"]
for _name in ("dim", "enc", "dec", "heads", "seg", "slots", "threads"):
    sys.argv += [f"--{_name}", str(getattr(OWN, _name))]
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import torch_peer  # noqa: E402

torch = torch_peer.torch


class Whole:
    """Decodes the begun segment again for each token."""

    def __init__(self, model, encoded):
        self.model, self.encoded, self.ids = model, encoded, []

    def step(self, token):
        self.ids.append(token)
        m = self.model
        x = m.dec_tok(torch.tensor([self.ids])) + m.dec_pos[:len(self.ids)]
        for layer in m.dec:
            x = layer(x, self.encoded)
        return m.head(m.dec_norm(x[:, -1]))[0]


class Cached:
    """Decodes one token with the keys and values of those before it."""

    def __init__(self, model, encoded):
        self.model, self.length = model, 0
        self.cross, self.own = [], []
        a = model.a
        for layer in model.dec:
            k, v = layer.cross_attn.kv(encoded).chunk(2, dim=-1)
            self.cross.append((layer.cross_attn.split(k), layer.cross_attn.split(v)))
            shape = (1, a.heads, a.seg, a.dim // a.heads)
            self.own.append((torch.empty(shape), torch.empty(shape)))

    @staticmethod
    def attend(attention, q, k, v):
        if torch_peer.SDPA is not None:
            o = torch_peer.SDPA(q, k, v)
        else:
            o = torch.matmul(torch.matmul(q * attention.scale, k.transpose(-1, -2)).softmax(dim=-1), v)
        return attention.out(o.transpose(1, 2).reshape(1, 1, -1))

    def step(self, token):
        m, at = self.model, self.length
        self.length += 1
        x = m.dec_tok(torch.tensor([[token]])) + m.dec_pos[at]
        for layer, (ck, cv), (keys, values) in zip(m.dec, self.cross, self.own):
            own, cross = layer.self_attn, layer.cross_attn
            q, k, v = own.qkv(layer.n1(x)).chunk(3, dim=-1)
            keys[:, :, at], values[:, :, at] = own.split(k)[:, :, 0], own.split(v)[:, :, 0]
            x = x + self.attend(own, own.split(q), keys[:, :, :at + 1], values[:, :, :at + 1])
            x = x + self.attend(cross, cross.split(cross.q(layer.n2(x))), ck, cv)
            x = x + layer.ff(layer.n3(x))
        return m.head(m.dec_norm(x))[0, 0]


def main():
    torch.manual_seed(0)
    model = torch_peer.Memformer(torch_peer.ARGS).eval()
    way = Whole if OWN.no_cache else Cached
    with torch.no_grad():
        memory = model.writer.initial(1)

        def encode(ids):
            nonlocal memory
            source = torch.tensor([ids])
            encoded = model.encode(source, memory)
            memory = model.writer(memory, encoded)
            return encoded

        begin = time.perf_counter()
        encoded = encode(torch.randint(0, 256, (OWN.seg,)).tolist())
        if OWN.check:
            whole, cached = Whole(model, encoded), Cached(model, encoded)
            worst = max((whole.step(t) - cached.step(t)).abs().max().item() for t in range(OWN.seg))
            print(json.dumps({"largest_difference_of_logits": worst}))
            return
        decoder, begun, last = way(model, encoded), [], BEGIN
        prompt_s = time.perf_counter() - begin
        times = []
        begin, cpu = time.perf_counter(), time.process_time()
        for _ in range(OWN.tokens):
            start = time.perf_counter()
            if len(begun) == OWN.seg:
                decoder, begun, last = way(model, encode(begun)), [], BEGIN
            logits = decoder.step(last)[:256]
            last = torch.multinomial(torch.softmax(logits / 0.8, -1), 1).item()
            begun.append(last)
            times.append(time.perf_counter() - start)
        wall, cpu = time.perf_counter() - begin, time.process_time() - cpu
    times.sort()
    print(json.dumps({
        "dim": OWN.dim, "enc": OWN.enc, "dec": OWN.dec, "heads": OWN.heads, "seg": OWN.seg, "slots": OWN.slots,
        "threads": OWN.threads, "torch": torch.__version__, "cache": not OWN.no_cache, "tokens": OWN.tokens,
        "tokens_per_s": round(OWN.tokens / wall, 2), "seconds": round(wall, 5), "cpu_s": round(cpu, 5),
        "prompt_s": round(prompt_s, 5), "token_s": round(times[len(times) // 2], 6),
        "peak_rss_mb": round(torch_peer.peak_mb(), 1)}))


if __name__ == "__main__":
    main()
