#!/usr/bin/env python3
"""Golden numbers for Memformer: a plain float64 PyTorch model, used only as an oracle for tests.

    memformer_golden.py            write <case>.json for every case, and closed_form.json
    memformer_golden.py --check    self-checks, and compare the files on disk with fresh results

The model is written from the equations (README.md lists the conventions) as functions over a
dictionary of named parameter tensors. A window of segments is run by ordinary full
back-propagation through time: one graph over all segments, one backward call.

Letters in the shape comments: B batch, L segment length, k slots, d width, h heads,
c = d / h head width, V vocabulary, F feed-forward width.
"""

import argparse
import json
import math
import os
import sys

import torch

torch.set_default_dtype(torch.float64)
torch.set_num_threads(1)

HERE = os.path.dirname(os.path.abspath(__file__))
BATCH = 2
SEGMENT_COUNT = 3

DEFAULT_MODEL = {
    "architecture": "encoder_decoder",
    "vocabulary": 11,
    "width": 8,
    "heads": 2,
    "encoder_layers": 2,
    "decoder_layers": 1,
    "feed_forward": 12,
    "segment": 5,
    "slots": 3,
    "activation": "gelu",
    "final_norm": True,
    "norm_epsilon": 1e-5,
    "positions": "learned",
    "relative_buckets": 32,
    "relative_max_distance": 128,
    "embedding_scale": 1,
    "attention_bias": True,
    "tie_embeddings": True,
    "tie_output": True,
    "memory_read_norm": "shared",
    "writer_project_value": False,
    "writer_shared_key": True,
    "writer_output_projection": False,
    "temperature": 1,
    "memory_norm": "l2",
    "memory_radius": 0,
    "memory_epsilon": 1e-6,
    "forgetting": True,
    "dropout": 0,
    "attention_dropout": 0,
}

# What each case changes in DEFAULT_MODEL. The case "resets" also has its own inputs (make_inputs).
CASES = {
    "default": {},
    "resets": {},
    "unit_radius": {
        "memory_radius": 1,
        "temperature": 0.25,
        "memory_read_norm": "none",
        "tie_embeddings": False,
        "tie_output": False,
        "activation": "relu",
    },
    "v1_writer": {
        "writer_project_value": True,
        "writer_shared_key": False,
        "writer_output_projection": True,
        "memory_norm": "none",
        "forgetting": False,
        "positions": "simplified_relative",
    },
    "own_norm_t5": {
        "memory_read_norm": "own",
        "memory_norm": "layer_norm",
        "positions": "relative_bias",
        "relative_buckets": 8,
        "relative_max_distance": 16,
        "activation": "silu",
        "final_norm": False,
    },
    "sinusoidal_scale": {
        "positions": "sinusoidal",
        "embedding_scale": math.sqrt(8),
        "attention_bias": False,
    },
    # The large memory_epsilon makes its place in the normalisation visible.
    "encoder_only": {"architecture": "encoder_only", "decoder_layers": 0, "memory_epsilon": 0.05},
    "no_memory": {"slots": 0},
}


# ------------------------------------------------------------------------------------------------
# Parameters


def parameter_shapes(model):
    """Name -> shape of every parameter that this configuration has, in byte order of the names."""
    width, vocabulary = model["width"], model["vocabulary"]
    has_memory = model["slots"] > 0
    has_decoder = model["architecture"] == "encoder_decoder"
    shapes = {}

    def add_norm(name):
        shapes[name + ".gain"] = [width]
        shapes[name + ".bias"] = [width]

    def add_linear(name, inputs, outputs, bias):
        shapes[name + ".weight"] = [inputs, outputs]
        if bias:
            shapes[name + ".bias"] = [outputs]

    def add_attention(name):
        for projection in ("query", "key", "value", "output"):
            add_linear(name + "." + projection, width, width, model["attention_bias"])

    def add_self_attention(name):
        add_attention(name)
        if model["positions"] == "simplified_relative":
            distances = 2 * model["segment"] - 1
            shapes[name + ".relative.weight"] = [distances, width // model["heads"]]

    def add_feed_forward(name):
        add_linear(name + ".up", width, model["feed_forward"], True)
        add_linear(name + ".down", model["feed_forward"], width, True)

    def add_stack_positions(stack):
        if model["positions"] == "learned":
            shapes[stack + ".positions.weight"] = [model["segment"], width]
        elif model["positions"] == "relative_bias":
            shapes[stack + ".relative_bias.weight"] = [model["relative_buckets"], model["heads"]]

    shapes["encoder.tokens.weight"] = [vocabulary, width]
    add_stack_positions("encoder")
    for index in range(model["encoder_layers"]):
        layer = f"encoder.layers.{index}"
        add_norm(layer + ".self_norm")
        add_self_attention(layer + ".self_attention")
        if has_memory:
            add_norm(layer + ".memory_norm")
            if model["memory_read_norm"] == "own":
                add_norm(layer + ".slot_norm")
            add_attention(layer + ".memory_attention")
        add_norm(layer + ".feed_forward_norm")
        add_feed_forward(layer + ".feed_forward")
    if model["final_norm"]:
        add_norm("encoder.norm")

    if has_memory:
        shapes["memory.forgetting"] = [model["slots"], width]
        add_linear("writer.query", width, width, False)
        add_linear("writer.key", width, width, False)
        if not model["writer_shared_key"]:
            add_linear("writer.slot_key", width, width, False)
        add_linear("writer.value", width, width, False)
        if model["writer_output_projection"]:
            add_linear("writer.output", width, width, False)

    if has_decoder:
        if not model["tie_embeddings"]:
            shapes["decoder.tokens.weight"] = [vocabulary, width]
        add_stack_positions("decoder")
        for index in range(model["decoder_layers"]):
            layer = f"decoder.layers.{index}"
            add_norm(layer + ".self_norm")
            add_self_attention(layer + ".self_attention")
            add_norm(layer + ".cross_norm")
            add_attention(layer + ".cross_attention")
            add_norm(layer + ".feed_forward_norm")
            add_feed_forward(layer + ".feed_forward")
        if model["final_norm"]:
            add_norm("decoder.norm")

    if not model["tie_output"]:
        add_linear("output", width, vocabulary, True)

    return {name: shapes[name] for name in sorted(shapes, key=lambda name: name.encode("utf-8"))}


def make_parameters(model):
    """Parameter number p (byte order of names), entry j: 0.1 sin(0.7 j + p), gains plus 1."""
    parameters = {}
    for number, (name, shape) in enumerate(parameter_shapes(model).items()):
        count = math.prod(shape)
        offset = 1.0 if name.endswith(".gain") else 0.0
        values = [0.1 * math.sin(0.7 * entry + number) + offset for entry in range(count)]
        parameters[name] = torch.tensor(values).reshape(shape).requires_grad_(True)
    return parameters


# ------------------------------------------------------------------------------------------------
# Small pieces


def linear(parameters, name, inputs):
    """y = x W + b, with W stored as [in, out]; no b if the model has none of that name."""
    outputs = inputs @ parameters[name + ".weight"]
    if name + ".bias" in parameters:
        outputs = outputs + parameters[name + ".bias"]
    return outputs


def standardise(inputs, epsilon):
    """Zero mean and unit (biased) variance over the last dimension."""
    centred = inputs - inputs.mean(dim=-1, keepdim=True)
    variance = (centred * centred).mean(dim=-1, keepdim=True)
    return centred / torch.sqrt(variance + epsilon)


def layer_norm(model, parameters, name, inputs):
    standard = standardise(inputs, model["norm_epsilon"])
    return standard * parameters[name + ".gain"] + parameters[name + ".bias"]


def activate(model, inputs):
    if model["activation"] == "gelu":
        return inputs * 0.5 * (1.0 + torch.erf(inputs / math.sqrt(2.0)))
    if model["activation"] == "relu":
        return torch.clamp(inputs, min=0.0)
    if model["activation"] == "silu":
        return inputs * torch.sigmoid(inputs)
    raise ValueError(model["activation"])


def feed_forward(model, parameters, name, inputs):
    hidden = activate(model, linear(parameters, name + ".up", inputs))
    return linear(parameters, name + ".down", hidden)


def split_heads(inputs, heads):
    """[B, n, d] -> [B, h, n, c]: head j takes the j-th chunk of the features."""
    batch, length, width = inputs.shape
    return inputs.reshape(batch, length, heads, width // heads).permute(0, 2, 1, 3)


def join_heads(inputs):
    """[B, h, n, c] -> [B, n, d]."""
    batch, heads, length, head_width = inputs.shape
    return inputs.permute(0, 2, 1, 3).reshape(batch, length, heads * head_width)


def masked_softmax(scores, allowed):
    """Softmax over the last dimension; where `allowed` (broadcast, or None for all) is False, 0."""
    if allowed is not None:
        scores = torch.where(allowed, scores, torch.full_like(scores, -math.inf))
    return torch.softmax(scores, dim=-1)


def attention(
    model, parameters, name, queries_from, keys_from, allowed=None, bias=None, relative=None
):
    """Multi-head attention with an output projection.

    allowed    bool, broadcasts to [B, 1, queries, keys]; None: every key is visible
    bias       [h, queries, keys] added to the scaled scores (T5), or None
    relative   [queries, keys, c], one vector per (query, key) pair, shared by the heads, which
               joins the key before scaling and the value (simplified relative), or None
    """
    heads = model["heads"]
    query = split_heads(linear(parameters, name + ".query", queries_from), heads)
    key = split_heads(linear(parameters, name + ".key", keys_from), heads)
    value = split_heads(linear(parameters, name + ".value", keys_from), heads)

    scores = torch.einsum("bhic,bhjc->bhij", query, key)
    if relative is not None:
        scores = scores + torch.einsum("bhic,ijc->bhij", query, relative)
    scores = scores / math.sqrt(model["width"] // heads)
    if bias is not None:
        scores = scores + bias

    weights = masked_softmax(scores, allowed)
    mixed = torch.einsum("bhij,bhjc->bhic", weights, value)
    if relative is not None:
        mixed = mixed + torch.einsum("bhij,ijc->bhic", weights, relative)
    return linear(parameters, name + ".output", join_heads(mixed))


# ------------------------------------------------------------------------------------------------
# Positions


def sinusoidal_table(length, width):
    table = torch.zeros(length, width)
    for position in range(length):
        for pair in range(width // 2):
            angle = position / 10000.0 ** (2 * pair / width)
            table[position, 2 * pair] = math.sin(angle)
            table[position, 2 * pair + 1] = math.cos(angle)
    return table


def relative_bucket(query, key, buckets, max_distance, bidirectional):
    """T5's bucket of one (query position, key position) pair."""
    offset = 0
    if bidirectional:
        buckets //= 2
        if key > query:
            offset = buckets
        distance = abs(query - key)
    else:
        distance = max(query - key, 0)
    exact = buckets // 2
    if distance < exact:
        return offset + distance
    ratio = math.log(distance / exact) / math.log(max_distance / exact)
    return offset + min(exact + math.floor(ratio * (buckets - exact)), buckets - 1)


def embed(model, parameters, stack, tokens):
    """Token rows times embedding_scale, plus the absolute positions if there are any."""
    table = parameters["encoder.tokens.weight"]
    if stack == "decoder" and not model["tie_embeddings"]:
        table = parameters["decoder.tokens.weight"]
    embedded = table[tokens] * model["embedding_scale"]
    length = tokens.shape[1]
    if model["positions"] == "learned":
        embedded = embedded + parameters[stack + ".positions.weight"][:length]
    elif model["positions"] == "sinusoidal":
        embedded = embedded + sinusoidal_table(length, model["width"])
    return embedded


def self_attention(model, parameters, stack, layer, inputs, allowed):
    """Self-attention of one layer, with the position terms that belong to the scores."""
    name = layer + ".self_attention"
    length = inputs.shape[1]
    bias = relative = None
    if model["positions"] == "relative_bias":
        index = [
            [
                relative_bucket(
                    query,
                    key,
                    model["relative_buckets"],
                    model["relative_max_distance"],
                    bidirectional=(stack == "encoder"),
                )
                for key in range(length)
            ]
            for query in range(length)
        ]
        table = parameters[stack + ".relative_bias.weight"]
        bias = table[torch.tensor(index)].permute(2, 0, 1)
    elif model["positions"] == "simplified_relative":
        position = torch.arange(length)
        row = position[:, None] - position[None, :] + model["segment"] - 1
        relative = parameters[name + ".relative.weight"][row]
    return attention(model, parameters, name, inputs, inputs, allowed, bias, relative)


# ------------------------------------------------------------------------------------------------
# Memory


def normalise_memory(model, slots):
    if model["memory_norm"] == "l2":
        radius = model["memory_radius"] or math.sqrt(model["width"])
        squared = (slots * slots).sum(dim=-1, keepdim=True)
        return radius * slots / torch.sqrt(squared + model["memory_epsilon"] ** 2)
    if model["memory_norm"] == "layer_norm":
        return standardise(slots, model["norm_epsilon"])
    if model["memory_norm"] == "none":
        return slots
    raise ValueError(model["memory_norm"])


def first_memory(model, parameters, batch):
    """M_0, the normalised forgetting vectors, for every batch row: [B, k, d]."""
    single = normalise_memory(model, parameters["memory.forgetting"])
    return single[None].expand(batch, -1, -1)


def write_memory(model, parameters, memory, encoded, padding=None):
    """The next memory [B, k, d] and the attention weights [B, h, k, 1 + L] (own slot first).

    A slot sees only itself and the unpadded tokens, never another slot.
    """
    heads = model["heads"]
    slot_key_name = "writer.key" if model["writer_shared_key"] else "writer.slot_key"
    query = split_heads(linear(parameters, "writer.query", memory), heads)
    slot_key = split_heads(linear(parameters, slot_key_name, memory), heads)
    token_key = split_heads(linear(parameters, "writer.key", encoded), heads)
    token_value = split_heads(linear(parameters, "writer.value", encoded), heads)
    if model["writer_project_value"]:
        own_value = split_heads(linear(parameters, "writer.value", memory), heads)
    else:
        own_value = split_heads(memory, heads)

    own_score = (query * slot_key).sum(dim=-1, keepdim=True)  # [B, h, k, 1]
    token_scores = torch.einsum("bhic,bhjc->bhij", query, token_key)  # [B, h, k, L]
    scale = 1.0 / (math.sqrt(model["width"] // heads) * model["temperature"])
    scores = torch.cat([own_score, token_scores], dim=-1) * scale
    allowed = None
    if padding is not None:
        own_allowed = torch.ones(padding.shape[0], 1, dtype=torch.bool)
        allowed = torch.cat([own_allowed, padding], dim=-1)[:, None, None, :]
    weights = masked_softmax(scores, allowed)

    mixed = weights[..., :1] * own_value
    mixed = mixed + torch.einsum("bhij,bhjc->bhic", weights[..., 1:], token_value)
    written = join_heads(mixed)
    if model["writer_output_projection"]:
        written = linear(parameters, "writer.output", written)
    if model["forgetting"]:
        written = written + parameters["memory.forgetting"]
    return normalise_memory(model, written), weights


def read_memory(model, parameters, layer, hidden, memory):
    """Memory attention of one encoder layer (without the residual)."""
    queries_from = layer_norm(model, parameters, layer + ".memory_norm", hidden)
    if model["memory_read_norm"] == "shared":
        memory = layer_norm(model, parameters, layer + ".memory_norm", memory)
    elif model["memory_read_norm"] == "own":
        memory = layer_norm(model, parameters, layer + ".slot_norm", memory)
    return attention(model, parameters, layer + ".memory_attention", queries_from, memory)


# ------------------------------------------------------------------------------------------------
# Stacks, one step, and a window of steps


def encode(model, parameters, tokens, memory, padding):
    hidden = embed(model, parameters, "encoder", tokens)
    allowed = None if padding is None else padding[:, None, None, :]
    for index in range(model["encoder_layers"]):
        layer = f"encoder.layers.{index}"
        normed = layer_norm(model, parameters, layer + ".self_norm", hidden)
        hidden = hidden + self_attention(model, parameters, "encoder", layer, normed, allowed)
        if model["slots"] > 0:
            hidden = hidden + read_memory(model, parameters, layer, hidden, memory)
        normed = layer_norm(model, parameters, layer + ".feed_forward_norm", hidden)
        hidden = hidden + feed_forward(model, parameters, layer + ".feed_forward", normed)
    if model["final_norm"]:
        hidden = layer_norm(model, parameters, "encoder.norm", hidden)
    return hidden


def decode(model, parameters, decoder_inputs, encoded, padding):
    hidden = embed(model, parameters, "decoder", decoder_inputs)
    length = decoder_inputs.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    visible = None if padding is None else padding[:, None, None, :]
    for index in range(model["decoder_layers"]):
        layer = f"decoder.layers.{index}"
        normed = layer_norm(model, parameters, layer + ".self_norm", hidden)
        hidden = hidden + self_attention(model, parameters, "decoder", layer, normed, causal)
        normed = layer_norm(model, parameters, layer + ".cross_norm", hidden)
        name = layer + ".cross_attention"
        hidden = hidden + attention(model, parameters, name, normed, encoded, visible)
        normed = layer_norm(model, parameters, layer + ".feed_forward_norm", hidden)
        hidden = hidden + feed_forward(model, parameters, layer + ".feed_forward", normed)
    if model["final_norm"]:
        hidden = layer_norm(model, parameters, "decoder.norm", hidden)
    return hidden


def run_step(model, parameters, memory, step):
    """One segment: reset, encode, write the next memory, predict. Returns (memory, logits)."""
    padding = step.get("padding")
    has_decoder = model["architecture"] == "encoder_decoder"
    if model["slots"] > 0:
        start = first_memory(model, parameters, memory.shape[0])
        memory = torch.where(step["reset"][:, None, None], start, memory)

    encoded = encode(model, parameters, step["tokens"], memory, padding)
    if model["slots"] > 0:
        memory, _ = write_memory(model, parameters, memory, encoded, padding)

    hidden = encoded
    if has_decoder:
        hidden = decode(model, parameters, step["decoder_inputs"], encoded, padding)
    if model["tie_output"]:
        table = parameters["encoder.tokens.weight"]
        if has_decoder and not model["tie_embeddings"]:
            table = parameters["decoder.tokens.weight"]
        logits = hidden @ table.T
    else:
        logits = linear(parameters, "output", hidden)
    return memory, logits


def cross_entropy_sum(logits, targets):
    """Sum of -log softmax(logits)[target] over the positions whose target is not -1."""
    log_probability = logits - torch.logsumexp(logits, dim=-1, keepdim=True)
    chosen = log_probability.gather(-1, targets.clamp(min=0)[..., None])[..., 0]
    return torch.where(targets >= 0, -chosen, torch.zeros_like(chosen)).sum()


def run_window(model, parameters, initial_memory, steps, detach_memory=False):
    """All segments in one graph. detach_memory cuts the recurrence (negative control only)."""
    memory = initial_memory
    loss_sums, memories, scored = [], [], 0
    for step in steps:
        memory, logits = run_step(model, parameters, memory, step)
        loss_sums.append(cross_entropy_sum(logits, step["targets"]))
        memories.append(memory)
        scored += int((step["targets"] >= 0).sum())
        if detach_memory:
            memory = memory.detach()
    return {
        "loss": sum(loss_sums) / scored,
        "loss_sums": loss_sums,
        "scored": scored,
        "memories": memories,
        "last_logits": logits,
    }


# ------------------------------------------------------------------------------------------------
# Inputs


def make_inputs(case, model):
    """The carried-in memory [B, k, d] and the list of steps (tensors)."""
    length, vocabulary = model["segment"], model["vocabulary"]
    begin = vocabulary - 1  # never appears in the stream itself
    stream_length = (SEGMENT_COUNT + 1) * length
    stream = torch.tensor(
        [
            [(3 * n + n * n // 4 + 7 * row) % (vocabulary - 1) for n in range(stream_length)]
            for row in range(BATCH)
        ]
    )

    steps = []
    for number in range(SEGMENT_COUNT):
        start = number * length
        step = {"tokens": stream[:, start : start + length]}
        if model["architecture"] == "encoder_decoder":
            # The decoder predicts the next segment.
            following = stream[:, start + length : start + 2 * length]
            begins = torch.full((BATCH, 1), begin)
            step["decoder_inputs"] = torch.cat([begins, following[:, :-1]], dim=1)
            step["targets"] = following.clone()
        else:
            # Each encoder position predicts the token three places on.
            step["targets"] = stream[:, start + 3 : start + 3 + length].clone()
        step["reset"] = torch.full((BATCH,), number == 0)
        steps.append(step)

    if case == "resets":
        # Segment 0 starts from the carried memory of both rows and has no target at all, segment 1
        # resets row 1 and is padded (left in row 0, right in row 1), segment 2 resets row 0.
        steps[0]["reset"] = torch.tensor([False, False])
        steps[1]["reset"] = torch.tensor([False, True])
        steps[2]["reset"] = torch.tensor([True, False])
        steps[0]["targets"][:] = -1
        steps[1]["targets"][0, 2] = -1
        steps[1]["targets"][1, 3:] = -1
        steps[2]["targets"][0, :2] = -1
        steps[2]["targets"][1, 4] = -1
        steps[1]["padding"] = torch.tensor([[0, 1, 1, 1, 1], [1, 1, 1, 0, 0]], dtype=torch.bool)

    # A carried memory unlike M_0. Where segment 0 resets every row it must have no effect.
    count = BATCH * model["slots"] * model["width"]
    carried = torch.tensor([math.cos(1.3 * entry + 0.4) for entry in range(count)])
    carried = carried.reshape(BATCH, model["slots"], model["width"])
    return normalise_memory(model, carried).detach(), steps


def run_case(case, detach_memory=False):
    """Everything that a check or a file needs, with gradients filled in."""
    model = {**DEFAULT_MODEL, **CASES[case]}
    parameters = make_parameters(model)
    initial_memory, steps = make_inputs(case, model)
    initial_memory.requires_grad_(True)
    window = run_window(model, parameters, initial_memory, steps, detach_memory)
    window["loss"].backward()
    gradients = {}
    for name, parameter in parameters.items():
        reached = parameter.grad is not None
        gradients[name] = parameter.grad if reached else torch.zeros_like(parameter)
    memory_reached = initial_memory.grad is not None
    return {
        "model": model,
        "parameters": parameters,
        "initial_memory": initial_memory.detach(),
        "initial_memory_gradient": (
            initial_memory.grad if memory_reached else torch.zeros_like(initial_memory)
        ),
        "steps": steps,
        "window": window,
        "gradients": gradients,
    }


# ------------------------------------------------------------------------------------------------
# Closed-form cases: radius 1, epsilon 0


def closed_form_model(width, heads, temperature):
    return {
        **DEFAULT_MODEL,
        "width": width,
        "heads": heads,
        "temperature": temperature,
        "memory_radius": 1,
        "memory_epsilon": 0,
    }


def leaf(values):
    return torch.tensor(values, dtype=torch.float64).requires_grad_(True)


def closed_form_normalisation():
    """Biased memory normalisation of single vectors: next = (m' + v) / |m' + v|."""
    model = closed_form_model(2, 1, 1)

    def biased_normalise(written, forgetting):
        return normalise_memory(model, torch.tensor(written) + torch.tensor(forgetting))

    diagonal = 1.0 / math.sqrt(2.0)
    examples = [
        ("added", [0.6, 0.8], [1.0, 0.0]),
        ("zero memory gives v / |v|", [0.0, 0.0], [0.3, -0.4]),
        ("v / |v| is a fixed point", [0.6, -0.8], [0.3, -0.4]),
        ("v / |v| is a fixed point, other vector", [diagonal, diagonal], [2.5, 2.5]),
    ]
    result = []
    for what, written, forgetting in examples:
        result.append(
            {
                "what": what,
                "written": written,
                "forgetting": forgetting,
                "next": biased_normalise(written, forgetting),
            }
        )
    return result


def closed_form_angles():
    """A slot that attends only to itself, started 170 degrees away from v = (b, 0)."""
    model = closed_form_model(2, 1, 1)
    result = []
    for strength, count in ((1.0, 5), (0.1, 4), (1.15, 4), (3.2, 4)):
        start = math.radians(170.0)
        slot = torch.tensor([math.cos(start), math.sin(start)])
        degrees = []
        for _ in range(count):
            slot = normalise_memory(model, slot + torch.tensor([strength, 0.0]))
            degrees.append(math.degrees(math.atan2(float(slot[1]), float(slot[0]))))
        result.append({"forgetting": [strength, 0.0], "start_degrees": 170, "degrees": degrees})
    return result


def closed_form_slot_attention(temperature):
    """One head, one slot, two tokens, identity weights; the gradients are those of next[0]."""
    model = closed_form_model(2, 1, temperature)
    memory, tokens = leaf([[[1, 0]]]), leaf([[[0, 1], [1, 0]]])
    parameters = {
        "writer.query.weight": torch.eye(2),
        "writer.key.weight": torch.eye(2),
        "writer.value.weight": torch.eye(2),
        "memory.forgetting": leaf([[0, 1]]),
    }
    following, weights = write_memory(model, parameters, memory, tokens)
    following[0, 0, 0].backward()
    return {
        "temperature": temperature,
        "memory": memory,
        "tokens": tokens,
        "forgetting": parameters["memory.forgetting"],
        "weights": weights,
        "next": following,
        "memory_gradient": memory.grad,
        "tokens_gradient": tokens.grad,
        "forgetting_gradient": parameters["memory.forgetting"].grad,
    }


def closed_form_two_heads():
    """Weights [heads, slots, 1 + tokens]: own slot, token 0, token 1."""
    model = closed_form_model(4, 2, 0.5)
    memory = leaf([[[1, 0, 0, 1], [0, 1, 1, 0]]])
    tokens = leaf([[[1, 1, 0, 0], [0, 0, 1, 1]]])
    parameters = {
        "writer.query.weight": torch.eye(4),
        "writer.key.weight": torch.eye(4).flip(0),
        "writer.value.weight": 2.0 * torch.eye(4),
        "memory.forgetting": leaf([[0.5, 0, 0, 0], [0, 0, 0, -0.5]]),
    }
    following, weights = write_memory(model, parameters, memory, tokens)
    return {
        "temperature": 0.5,
        "query_weight": parameters["writer.query.weight"],
        "key_weight": parameters["writer.key.weight"],
        "value_weight": parameters["writer.value.weight"],
        "memory": memory,
        "tokens": tokens,
        "forgetting": parameters["memory.forgetting"],
        "weights": weights,
        "next": following,
    }


def closed_form_replay_toy():
    """M' = a M + x, O = w M + x, loss = (O - y)^2 / 2, by ordinary back-propagation."""
    inputs, targets = [1.0, -1.0, 2.0], [0.0, 1.0, 3.0]
    decay, weight, start = leaf(0.5), leaf(2.0), leaf(1.0)
    memory, memories, losses = start, [], []
    for value, target in zip(inputs, targets):
        memories.append(memory)
        losses.append((weight * memory + value - target) ** 2 / 2)
        memory = decay * memory + value
    gradients = torch.autograd.grad(sum(losses), [decay, weight] + memories)
    # The reverse sweep after step T alone: a fresh leaf, and no gradient for the memory it writes.
    last_memory = memories[-1].detach().requires_grad_(True)
    last_loss = (weight * last_memory + inputs[-1] - targets[-1]) ** 2 / 2
    last_written = decay * last_memory + inputs[-1]
    last_decay, last_weight = torch.autograd.grad(
        [last_loss, last_written], [decay, weight], [torch.tensor(1.0), torch.tensor(0.0)]
    )
    return {
        "decay": 0.5,
        "weight": 2.0,
        "start": 1.0,
        "inputs": inputs,
        "targets": targets,
        "memories": torch.stack(memories),
        "losses": torch.stack(losses),
        "decay_gradient": float(gradients[0]),
        "weight_gradient": float(gradients[1]),
        "start_gradient": float(gradients[2]),
        "reverse_memory_gradients": torch.stack(gradients[:1:-1]),
        "decay_gradient_after_last_step": abs(float(last_decay)),  # 0, not -0
        "weight_gradient_after_last_step": float(last_weight),
    }


def closed_form_buckets():
    """T5 buckets of the key offsets (key minus query) first_offset, first_offset + 1, ..."""
    result = []
    for buckets, max_distance, reach in ((8, 16, 20), (32, 128, 140)):
        for bidirectional in (True, False):
            table = [
                relative_bucket(reach, reach + offset, buckets, max_distance, bidirectional)
                for offset in range(-reach, reach + 1)
            ]
            result.append(
                {
                    "buckets": buckets,
                    "max_distance": max_distance,
                    "bidirectional": bidirectional,
                    "first_offset": -reach,
                    "table": table,
                }
            )
    return result


def closed_forms():
    return {
        "radius": 1,
        "memory_epsilon": 0,
        "normalisation": closed_form_normalisation(),
        "angles": closed_form_angles(),
        "slot_attention": [closed_form_slot_attention(tau) for tau in (1, 0.25)],
        "two_heads": closed_form_two_heads(),
        "replay_toy": closed_form_replay_toy(),
        "relative_buckets": closed_form_buckets(),
    }


# ------------------------------------------------------------------------------------------------
# Files


def flat(value):
    """A tensor as a flat row-major list; booleans as 0 and 1. Other values unchanged."""
    if not isinstance(value, torch.Tensor):
        return value
    if value.dtype == torch.bool:
        value = value.long()
    return value.detach().reshape(-1).tolist()


def to_text(value, indent=0):
    """JSON with one flat array per line; floats by repr, which restores the same double."""
    pad = " " * (indent + 1)
    if isinstance(value, dict):
        items = [
            f"{pad}{json.dumps(key)}: {to_text(item, indent + 1)}" for key, item in value.items()
        ]
        return "{\n" + ",\n".join(items) + "\n" + " " * indent + "}"
    if isinstance(value, list) and value and isinstance(value[0], dict):
        items = [pad + to_text(item, indent + 1) for item in value]
        return "[\n" + ",\n".join(items) + "\n" + " " * indent + "]"
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def to_plain(value):
    """Tensors to flat lists, everywhere inside dictionaries and lists."""
    if isinstance(value, dict):
        return {key: to_plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [to_plain(item) for item in value]
    return flat(value)


def case_content(case):
    result = run_case(case)
    window = result["window"]
    segments = []
    for number, step in enumerate(result["steps"]):
        order = ("tokens", "decoder_inputs", "targets", "padding", "reset")
        segment = {key: step[key] for key in order if key in step}
        segment["loss_sum"] = float(window["loss_sums"][number])
        segment["scored"] = int((step["targets"] >= 0).sum())
        segment["memory"] = window["memories"][number]
        segments.append(segment)
    return to_plain(
        {
            "case": case,
            "model": result["model"],
            "batch": BATCH,
            "initial_memory": result["initial_memory"],
            "segments": segments,
            "scored": window["scored"],
            "mean_loss": float(window["loss"]),
            "last_logits": window["last_logits"],
            "initial_memory_gradient": result["initial_memory_gradient"],
            "parameter_shapes": parameter_shapes(result["model"]),
            "gradients": result["gradients"],
        }
    )


def all_content():
    content = {case: case_content(case) for case in CASES}
    content["closed_form"] = to_plain(closed_forms())
    return content


def path_of(name):
    return os.path.join(HERE, name + ".json")


# ------------------------------------------------------------------------------------------------
# Self-checks

FAILURES = []


def expect(condition, what):
    if not condition:
        FAILURES.append(what)
        print("FAILED:", what)


def expect_close(actual, printed, tolerance, what):
    """Compare with numbers given in print; `tolerance` is half a unit of the last digit, or so."""
    actual = flat(actual)
    actual = actual if isinstance(actual, list) else [actual]
    same = len(actual) == len(printed)
    worst = max(abs(a - b) for a, b in zip(actual, printed))
    expect(same and worst <= tolerance, f"{what}: {actual} against {printed}")


def check_closed_forms():
    """The numbers printed in the notes (7.1 and 1.6) against ours."""
    ours = closed_forms()
    digits_10 = 0.51e-10
    normalisation = ours["normalisation"]
    expect_close(normalisation[0]["next"], [0.894427, 0.447214], 0.51e-6, "normalisation")
    for example in normalisation[1:]:
        norm = math.hypot(*example["forgetting"])
        direction = [value / norm for value in example["forgetting"]]
        expect_close(example["next"], direction, 1e-15, example["what"])

    halving, *tables = [entry["degrees"] for entry in ours["angles"]]
    expect_close(halving, [85, 42.5, 21.25, 10.625, 5.3125], 1e-9, "halving")
    printed_tables = [
        [168.90, 167.67, 166.32, 164.82],
        [46.43, 21.50, 9.99, 4.65],
        [4.48, 1.07, 0.25, 0.06],
    ]
    for table, printed in zip(tables, printed_tables):
        expect_close(table, printed, 0.0051, "angle table")

    warm, sharp = ours["slot_attention"]
    expect_close(
        warm["weights"], [0.4011120927, 0.1977758146, 0.4011120927], digits_10, "weights, tau 1"
    )
    expect_close(warm["next"], [0.5564791398, 0.8308615811], digits_10, "next, tau 1")
    expect_close(
        sharp["weights"], [0.4856477146, 0.0287045707, 0.4856477146], digits_10, "weights, tau .25"
    )
    expect_close(sharp["next"], [0.6865268101, 0.7271044897], digits_10, "next, tau .25")
    expect_close(sharp["memory_gradient"], [0.2674133446, -0.2286401196], digits_10, "dm")
    expect_close(
        sharp["tokens_gradient"],
        [-0.0465646940, -0.0101277166, 0.2101223278, -0.1713491027],
        digits_10,
        "dx",
    )
    expect_close(sharp["forgetting_gradient"], [0.3736799615, -0.3528259220], digits_10, "dv")

    two_heads = ours["two_heads"]
    high, low = 0.4458082741, 0.1083834518
    expect_close(
        two_heads["weights"],
        [high, low, high] * 2 + [high, high, low] * 2,
        digits_10,
        "two heads, weights",
    )
    expect_close(
        two_heads["next"],
        [0.8468680560, 0.1579020177, 0.1579020177, 0.4826472846]
        + [0.2162032818, 0.6608523971, 0.6608523971, -0.2824966540],
        digits_10,
        "two heads, next",
    )

    toy = ours["replay_toy"]
    expect_close(toy["losses"], [4.5, 0.5, 1.125], 0, "toy losses")
    expect_close(toy["decay_gradient"], [-4], 0, "toy a")
    expect_close(toy["weight_gradient"], [4.875], 0, "toy w")
    expect_close(toy["start_gradient"], [6.25], 0, "toy M_0")
    expect_close(toy["reverse_memory_gradients"], [-3, 0.5, 6.25], 0, "toy G")
    expect_close(toy["decay_gradient_after_last_step"], [0], 0, "toy a after the last step")


def check_pieces():
    """The small pieces against PyTorch's own layers or against plain loops over scalars."""
    functional = torch.nn.functional
    generator = torch.Generator().manual_seed(1)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    def expect_same(ours, theirs, what):
        difference = float((ours - theirs).abs().max())
        expect(difference < 1e-13, f"{what}: differs by {difference}")

    batch, slots, length, width, heads = 2, 3, 5, 8, 2
    head_width = width // heads
    inputs, others = draw(batch, length, width), draw(batch, slots, width)

    for activation in ("gelu", "relu", "silu"):
        ours = activate({"activation": activation}, inputs)
        expect_same(ours, getattr(functional, activation)(inputs), activation)
    gain, shift = draw(width), draw(width)
    ours = layer_norm(DEFAULT_MODEL, {"n.gain": gain, "n.bias": shift}, "n", inputs)
    expect_same(ours, functional.layer_norm(inputs, [width], gain, shift, 1e-5), "layer norm")
    targets = torch.tensor([[3, -1, 0, 7, 2], [1, 1, -1, -1, 5]])
    theirs = functional.cross_entropy(
        inputs.reshape(-1, width), targets.reshape(-1), ignore_index=-1, reduction="sum"
    )
    expect_same(cross_entropy_sum(inputs, targets), theirs, "cross-entropy")

    # Multi-head attention over other keys, with a padding mask.
    parameters = {}
    for projection in ("query", "key", "value", "output"):
        parameters[f"a.{projection}.weight"] = draw(width, width)
        parameters[f"a.{projection}.bias"] = draw(width)
    weights = [parameters[f"a.{name}.weight"] for name in ("query", "key", "value")]
    biases = [parameters[f"a.{name}.bias"] for name in ("query", "key", "value")]
    padding = torch.tensor([[1, 1, 0, 1, 0], [0, 1, 1, 1, 1]], dtype=torch.bool)
    theirs, _ = functional.multi_head_attention_forward(
        others.transpose(0, 1),
        inputs.transpose(0, 1),
        inputs.transpose(0, 1),
        width,
        heads,
        torch.cat([weight.T for weight in weights]),
        torch.cat(biases),
        None,
        None,
        False,
        0.0,
        parameters["a.output.weight"].T,
        parameters["a.output.bias"],
        key_padding_mask=~padding,
    )
    ours = attention(DEFAULT_MODEL, parameters, "a", others, inputs, padding[:, None, None, :])
    expect_same(ours, theirs.transpose(0, 1), "attention")

    # Simplified relative positions: one head of self-attention, query by query.
    table = draw(2 * length - 1, head_width)
    position = torch.arange(length)
    relative = table[position[:, None] - position[None, :] + length - 1]
    ours = attention(DEFAULT_MODEL, parameters, "a", inputs, inputs, relative=relative)
    query, key, value = [inputs @ weight + bias for weight, bias in zip(weights, biases)]
    joined = torch.zeros_like(inputs)
    for row in range(batch):
        for head in range(heads):
            part = slice(head * head_width, (head + 1) * head_width)
            for i in range(length):
                scores, values = [], []
                for j in range(length):
                    distance = table[i - j + length - 1]
                    scores.append(query[row, i, part] @ (key[row, j, part] + distance))
                    values.append(value[row, j, part] + distance)
                exponentials = [math.exp(float(score) / math.sqrt(head_width)) for score in scores]
                for exponential, vector in zip(exponentials, values):
                    joined[row, i, part] += exponential / sum(exponentials) * vector
    theirs = joined @ parameters["a.output.weight"] + parameters["a.output.bias"]
    expect_same(ours, theirs, "simplified relative attention")

    # The writer, slot by slot, with padding.
    names = ("query", "key", "slot_key", "value", "output")
    parameters = {f"writer.{name}.weight": draw(width, width) / 2 for name in names}
    parameters["memory.forgetting"] = draw(slots, width)
    memory = others
    for project in (False, True):
        for shared in (False, True):
            model = {
                **DEFAULT_MODEL,
                "temperature": 0.5,
                "writer_project_value": project,
                "writer_shared_key": shared,
                "writer_output_projection": project,
            }
            ours, _ = write_memory(model, parameters, memory, inputs, padding)
            theirs = torch.zeros_like(memory)
            matrix = {name: parameters[f"writer.{name}.weight"] for name in names}
            own_key = matrix["key"] if shared else matrix["slot_key"]
            for row in range(batch):
                real = [inputs[row, j] for j in range(length) if padding[row, j]]
                for i in range(slots):
                    slot = memory[row, i]
                    own_value = slot @ matrix["value"] if project else slot
                    keys = [slot @ own_key] + [token @ matrix["key"] for token in real]
                    values = [own_value] + [token @ matrix["value"] for token in real]
                    written = torch.zeros(width)
                    for head in range(heads):
                        part = slice(head * head_width, (head + 1) * head_width)
                        own_query = (slot @ matrix["query"])[part]
                        exponentials = [
                            math.exp(float(own_query @ key[part]) / math.sqrt(head_width) / 0.5)
                            for key in keys
                        ]
                        for exponential, vector in zip(exponentials, values):
                            written[part] += exponential / sum(exponentials) * vector[part]
                    if project:
                        written = written @ matrix["output"]
                    written = written + parameters["memory.forgetting"][i]
                    scale = math.sqrt(width) / math.sqrt(float(written @ written) + 1e-12)
                    theirs[row, i] = scale * written
            expect_same(ours, theirs, f"writer, project {project}, shared key {shared}")

    # T5 buckets (32, maximum 128) of the key offsets -5..5.
    offsets = range(-5, 6)
    both = [relative_bucket(10, 10 + offset, 32, 128, True) for offset in offsets]
    expect(both == [5, 4, 3, 2, 1, 0, 17, 18, 19, 20, 21], f"two-sided buckets: {both}")
    past = [relative_bucket(10, 10 + offset, 32, 128, False) for offset in offsets]
    expect(past == [5, 4, 3, 2, 1, 0, 0, 0, 0, 0, 0], f"one-sided buckets: {past}")
    # The logarithm against whole numbers: the steps above `exact` are the largest m with
    # (max_distance / exact)^m <= (distance / exact)^(buckets - exact).
    for entry in closed_form_buckets():
        side = entry["buckets"] // (2 if entry["bidirectional"] else 1)
        exact = side // 2
        for position, bucket in enumerate(entry["table"]):
            distance = -(entry["first_offset"] + position)
            after = distance < 0
            distance = abs(distance) if entry["bidirectional"] else max(distance, 0)
            whole = distance
            if distance >= exact:
                room, step = side - exact, 0
                while entry["max_distance"] ** (step + 1) * exact**room <= (
                    distance**room * exact ** (step + 1)
                ):
                    step += 1
                whole = min(exact + step, side - 1)
            whole += side if after and entry["bidirectional"] else 0
            expect(whole == bucket, f"bucket of distance {distance}: {bucket}, exactly {whole}")


def check_finite_differences(case, result):
    """Slopes by the five-point rule, a few coordinates of every parameter. Returns the worst error.

    The plain two-point rule would not do: some losses bend so sharply (LayerNorm of rows with a
    small variance) that its error at the same step is above 1e-7.
    """
    model, parameters = result["model"], result["parameters"]
    step = 1e-5
    worst = 0.0

    def loss():
        memory = result["initial_memory"]
        return float(run_window(model, parameters, memory, result["steps"])["loss"])

    with torch.no_grad():
        for name, gradient in result["gradients"].items():
            values, slopes = parameters[name].view(-1), gradient.reshape(-1)
            largest = int(slopes.abs().argmax())
            # Small gradients must also agree in relation to their own size.
            allowed = min(1e-7, 1e-3 * float(slopes[largest].abs()) + 1e-10)
            for entry in sorted({0, len(values) // 2, largest}):
                original = float(values[entry])
                slope = 0.0
                for shift, factor in ((-2, 1), (-1, -8), (1, 8), (2, -1)):
                    values[entry] = original + shift * step
                    slope += factor * loss() / (12 * step)
                values[entry] = original
                error = abs(slope - float(slopes[entry]))
                worst = max(worst, error)
                expect(error <= allowed, f"{case}: slope of {name}[{entry}] is off by {error}")
    return worst


def check_detached(case, result):
    """Cutting the recurrence keeps the loss but must change the gradients. Returns the change."""
    cut = run_case(case, detach_memory=True)
    same_loss = float(cut["window"]["loss"]) == float(result["window"]["loss"])
    expect(same_loss, f"{case}: detaching must not change the loss")
    change = max(
        float((cut["gradients"][name] - gradient).abs().max())
        for name, gradient in result["gradients"].items()
    )
    if result["model"]["slots"] == 0:
        expect(change == 0.0, f"{case}: no memory, yet detaching changes the gradients")
    else:
        expect(change > 1e-4, f"{case}: detaching changes the gradients by {change} only")
        written = float(result["gradients"]["writer.value.weight"].abs().max())
        cut_written = float(cut["gradients"]["writer.value.weight"].abs().max())
        expect(written > 1e-6 and cut_written == 0.0, f"{case}: writer gradient, detached")
    return change


def check_properties(case, result):
    """Exact zeros that follow from the definition."""
    model, parameters = result["model"], result["parameters"]
    initial_memory, steps = result["initial_memory"], result["steps"]
    gradient = result["initial_memory_gradient"]

    if model["slots"] > 0 and case != "resets":
        expect(bool((gradient == 0).all()), f"{case}: gradient passes a reset of every row")
        other = run_window(model, parameters, initial_memory + 1.0, steps)
        same = bool((other["last_logits"] == result["window"]["last_logits"]).all())
        expect(same, f"{case}: a reset leaves a trace of the carried memory")

    if case == "resets":
        expect(bool((gradient[0] != 0).all()), "resets: row 0 gets gradient at segment 0")
        expect(bool((gradient[1] == 0).all()), "resets: row 1 is unscored, then reset")
        expect(float(result["window"]["loss_sums"][0]) == 0.0, "resets: segment 0 has no loss")
        # Other token ids under the padding change nothing.
        padded = [dict(step) for step in steps]
        tokens = padded[1]["tokens"]
        padded[1]["tokens"] = torch.where(padded[1]["padding"], tokens, (tokens + 4) % 10)
        other = run_window(model, parameters, initial_memory, padded)
        same = float(other["loss"]) == float(result["window"]["loss"])
        same = same and bool((other["memories"][2] == result["window"]["memories"][2]).all())
        expect(same, "resets: padded ids matter")

    if model["architecture"] == "encoder_decoder":
        # A later decoder input changes no earlier logit.
        changed = [dict(step) for step in steps]
        changed[2]["decoder_inputs"] = changed[2]["decoder_inputs"].clone()
        changed[2]["decoder_inputs"][:, 3] = 10
        other = run_window(model, parameters, initial_memory, changed)["last_logits"]
        difference = (other - result["window"]["last_logits"]).abs()
        expect(float(difference[:, :3].max()) == 0.0, f"{case}: the decoder sees the future")
        expect(float(difference[:, 3:].max()) > 0.0, f"{case}: the decoder ignores its input")

    if model["slots"] > 0 and model["memory_norm"] == "l2":
        radius = model["memory_radius"] or math.sqrt(model["width"])
        for memory in result["window"]["memories"]:
            norm = memory.norm(dim=-1)
            expect(float(norm.max()) <= radius + 1e-12, f"{case}: a slot outside the sphere")
            if model["memory_epsilon"] <= 1e-6:
                expect(float(norm.min()) > radius - 1e-9, f"{case}: a slot inside the sphere")


def largest_difference(actual, stored, where):
    """Largest |difference| / (1 + |value|) of two JSON values of the same form."""
    if isinstance(actual, dict):
        expect(list(actual) == list(stored), f"{where}: keys differ")
        parts = [largest_difference(actual[key], stored[key], f"{where}.{key}") for key in actual]
        return max(parts, default=0.0)
    if isinstance(actual, list):
        expect(len(actual) == len(stored), f"{where}: lengths differ")
        parts = [largest_difference(a, b, where) for a, b in zip(actual, stored)]
        return max(parts, default=0.0)
    if isinstance(actual, (str, bool)):
        expect(actual == stored, f"{where}: {actual} is not {stored}")
        return 0.0
    return abs(actual - stored) / (1.0 + abs(actual))


def check_files():
    worst = 0.0
    for name, content in all_content().items():
        with open(path_of(name), encoding="utf-8") as file:
            stored = json.load(file)
        difference = largest_difference(content, stored, name)
        expect(difference < 1e-12, f"{name}.json differs from a fresh run by {difference}")
        worst = max(worst, difference)
    return worst


def check():
    check_closed_forms()
    print("closed forms compared with the printed numbers")
    check_pieces()
    print("pieces compared with PyTorch's layers and with plain loops")
    for case in CASES:
        result = run_case(case)
        error = check_finite_differences(case, result)
        change = check_detached(case, result)
        check_properties(case, result)
        print(
            f"{case}: mean loss {float(result['window']['loss']):.6f}, worst finite-difference "
            f"error {error:.1e}, detaching changes gradients by {change:.1e}"
        )
    print(f"files: largest difference from a fresh run {check_files():.1e}")
    print("FAILED" if FAILURES else "all checks passed")
    return 1 if FAILURES else 0


def main():
    parser = argparse.ArgumentParser(description="Golden numbers for Memformer.")
    parser.add_argument("--check", action="store_true", help="run the self-checks, write nothing")
    if parser.parse_args().check:
        return check()
    for name, content in all_content().items():
        with open(path_of(name), "w", encoding="utf-8", newline="\n") as file:
            file.write(to_text(content) + "\n")
        print(f"{path_of(name)}: {os.path.getsize(path_of(name))} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
