#include "memformer/audit/tape_audit.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "autograd/ops.h"
#include "memformer/audit/mrbp_audit.h"
#include "memformer/replay/sweep.h"
#include "nn/parameters.h"

namespace mf {
namespace {

/// y = a + b, whose backward forgets b.
struct ForgetfulAdd {
  static constexpr const char* kName = "forgetful_add";
  Tensor forward(Wants, const Tensor& a, const Tensor& b) const { return add(a, b); }
  void backward(const Tensor& gy, Grads& g) const { g.add(0, gy); }
  auto saved() { return std::tie(); }
};

State random_like(State state, RngKey key) {
  for (std::size_t i = 0; i < state.size(); ++i) {
    Tensor& value = state[i].value;
    value =
        normal(value.shape(), key.at(i), 0.0, 1.0, DType::f64).to(value.dtype()).to(value.device());
  }
  return state;
}

std::optional<double> gradient_norm(const Parameter& parameter) {
  if (!parameter.grad().defined()) return {};
  return std::sqrt(sum_of_squares(parameter.grad()));
}

std::string entry_name(const TapeReport& report, std::size_t i) {
  const TapeReport::Row& row = report.rows[i];
  return fmt::format("entry {} ({}{})", i, row.op, row.module.empty() ? "" : " in " + row.module);
}

// Modules ---------------------------------------------------------------------------------------

/// An entry, or a module and what it recorded, in the order of recording.
struct Node {
  std::string name;       // of a module
  std::size_t entry = 0;  // of an entry
  std::vector<Node> parts{};

  bool is_module() const { return !parts.empty(); }
};

std::vector<std::string> components(const std::string& path) {
  std::vector<std::string> names;
  for (std::size_t begin = 0; begin < path.size();) {
    const std::size_t end = std::min(path.find('/', begin), path.size());
    names.push_back(path.substr(begin, end - begin));
    begin = end + 1;
  }
  return names;
}

void insert(std::vector<Node>& nodes, std::span<const std::string> path, std::size_t entry) {
  if (path.empty()) {
    nodes.push_back(Node{"", entry});
    return;
  }
  auto found = std::ranges::find_if(
      nodes, [&](const Node& node) { return node.is_module() && node.name == path[0]; });
  if (found == nodes.end()) found = nodes.insert(found, Node{path[0]});
  insert(found->parts, path.subspan(1), entry);
}

std::vector<Node> modules_of(const TapeReport& report) {
  std::vector<Node> nodes;
  for (std::size_t i = 0; i < report.rows.size(); ++i)
    insert(nodes, components(report.rows[i].module), i);
  return nodes;
}

struct Sums {
  std::int64_t entries = 0, saved_bytes = 0, received = 0, visited = 0;
};

Sums sums_of(const Node& node, const TapeAudit& audit) {
  Sums sums;
  if (node.is_module()) {
    for (const Node& part : node.parts) {
      const Sums inner = sums_of(part, audit);
      sums.entries += inner.entries;
      sums.saved_bytes += inner.saved_bytes;
      sums.received += inner.received;
      sums.visited += inner.visited;
    }
    return sums;
  }
  const TapeReport::Row& row = audit.swept.rows[node.entry];
  sums.entries = 1;
  sums.saved_bytes = audit.recorded.rows[node.entry].saved_bytes;
  for (const std::int32_t count : row.received) sums.received += count;
  sums.visited = row.visit >= 0 ? 1 : 0;
  return sums;
}

std::string counted(std::int64_t count, const char* one, const char* many) {
  return fmt::format("{} {}", count, count == 1 ? one : many);
}

std::string listed(const auto& values, const auto& text) {
  std::string list;
  for (const auto& value : values) list += (list.empty() ? "" : " ") + text(value);
  return list;
}

std::string outputs_text(const TapeReport::Row& row) {
  std::int32_t id = row.output;
  return listed(row.shapes,
                [&](const Shape& shape) { return fmt::format("{}:{}", id++, describe(shape)); });
}

TreeRow tree_row(const Node& node, const TapeAudit& audit) {
  const Sums sums = sums_of(node, audit);
  const auto number = [](std::int64_t value) { return std::to_string(value); };
  if (node.is_module()) {
    TreeRow row{{node.name, number(sums.entries), "", number(sums.saved_bytes),
                 fmt::format("{} of {}", sums.visited, sums.entries), number(sums.received), ""},
                {}};
    for (const Node& part : node.parts) row.parts.push_back(tree_row(part, audit));
    return row;
  }
  const TapeReport::Row& row = audit.swept.rows[node.entry];
  return {
      {fmt::format("{} {}", node.entry, row.op), "", outputs_text(row), number(sums.saved_bytes),
       row.visit < 0 ? "-" : number(row.visit), listed(row.received, number),
       listed(row.inputs, [&](std::int32_t id) { return id < 0 ? "-" : number(id); })},
      {}};
}

// Leaves ----------------------------------------------------------------------------------------

TreeTable leaves_tree(const TapeAudit& audit, int depth) {
  TreeTable tree{
      {{"leaf", false}, {"shape", false}, {"contributions"}, {"before"}, {"after the sweep"}},
      {},
      depth};
  for (std::size_t i = 0; i < audit.swept.leaves.size(); ++i) {
    const TapeReport::Leaf& leaf = audit.swept.leaves[i];
    if (leaf.parameter) continue;
    tree.rows.push_back(
        {{leaf.name + " (input)", describe(leaf.shape), std::to_string(leaf.received),
          describe_gradient(audit.recorded.leaves[i].gradient_norm),
          describe_gradient(leaf.gradient_norm)},
         {}});
  }
  const auto group_of = [](const SweptParameter& p) { return p.name.substr(0, p.name.find('.')); };
  std::vector<std::string> groups;
  for (const SweptParameter& parameter : audit.parameters)
    if (std::ranges::find(groups, group_of(parameter)) == groups.end())
      groups.push_back(group_of(parameter));
  for (const std::string& group : groups) {
    TreeRow row;
    std::int64_t contributions = 0, with_before = 0, with_after = 0;
    for (const SweptParameter& parameter : audit.parameters) {
      if (group_of(parameter) != group) continue;
      row.parts.push_back(
          {{parameter.name, describe(parameter.shape),
            parameter.leaf ? std::to_string(parameter.received) : "replayed",
            describe_gradient(parameter.before), describe_gradient(parameter.after)},
           {}});
      contributions += parameter.received;
      with_before += parameter.before ? 1 : 0;
      with_after += parameter.after ? 1 : 0;
    }
    const auto count = std::ssize(row.parts);
    const auto state = [&](std::int64_t with) {
      return with == 0 ? "none yet" : fmt::format("{} of {}", with, count);
    };
    row.cells = {fmt::format("{} ({})", group, counted(count, "parameter", "parameters")), "",
                 std::to_string(contributions), state(with_before), state(with_after)};
    tree.rows.push_back(std::move(row));
  }
  return tree;
}

// The graph -------------------------------------------------------------------------------------

std::string quoted(const std::string& text) {
  std::string result = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') result += '\\';
    if (c == '\n') {
      result += "\\n";
    } else {
      result += c;
    }
  }
  return result + '"';
}

/// The name of the graph's node that an entry is drawn in.
std::string drawn_in(const TapeReport& report, std::size_t entry, int depth) {
  const std::vector<std::string> path = components(report.rows[entry].module);
  if (std::ssize(path) < depth) return fmt::format("e{}", entry);
  std::string name = "m";
  for (int i = 0; i < depth; ++i) name += "/" + path[static_cast<std::size_t>(i)];
  return name;
}

void draw(const std::vector<Node>& nodes, const TapeAudit& audit, int depth, int level,
          const std::string& prefix, std::string& dot) {
  const std::string indent(static_cast<std::size_t>(2 * level + 2), ' ');
  for (const Node& node : nodes) {
    const Sums sums = sums_of(node, audit);
    const std::string name = prefix + "/" + node.name;
    const char* const look = sums.visited == 0 ? ", class=unvisited, style=dashed" : "";
    if (!node.is_module()) {
      const TapeReport::Row& row = audit.swept.rows[node.entry];
      dot += fmt::format(
          "{}e{} [label={}{}];\n", indent, node.entry,
          quoted(fmt::format("{} {}\n{} B saved", node.entry, row.op, sums.saved_bytes)), look);
    } else if (level + 1 >= depth) {
      dot += fmt::format(
          "{}{} [label={}, penwidth=2{}];\n", indent, quoted(name),
          quoted(fmt::format("{}\n{}\n{} B saved", node.name,
                             counted(sums.entries, "entry", "entries"), sums.saved_bytes)),
          look);
    } else {
      dot += fmt::format("{}subgraph {} {{\n{}  label={};\n", indent, quoted("cluster_" + name),
                         indent, quoted(node.name));
      draw(node.parts, audit, depth, level + 1, name, dot);
      dot += indent + "}\n";
    }
  }
}

}  // namespace

bool TapeAudit::holds() const {
  return std::ranges::all_of(claims, [](const TapeClaim& c) { return c.violations.empty(); });
}

std::vector<TapeClaim> claims_of(const TapeReport& recorded, const TapeReport& swept,
                                 std::int64_t saved_bytes,
                                 std::span<const std::pair<std::string, std::int32_t>> seeds) {
  TapeClaim order{"entries are in topological order: an entry's inputs were there before it", {}};
  TapeClaim visits{
      "the sweep visits the entries whose outputs received a gradient, once each, newest first",
      {}};
  TapeClaim given{"each visited entry gives a gradient to each of its inputs that is on the tape",
                  {}};
  TapeClaim received{"each value received what its seeds and the entries that use it gave", {}};
  TapeClaim bytes{
      "the entries' saved bytes add up to the tape's, and none are left after the sweep", {}};

  std::map<std::int32_t, std::int64_t> sent;
  for (const auto& [name, id] : seeds) ++sent[id];
  std::int32_t next_visit = 0;
  std::int64_t total = 0;
  for (std::size_t i = swept.rows.size(); i-- > 0;) {
    const TapeReport::Row& row = swept.rows[i];
    total += recorded.rows[i].saved_bytes;
    const bool wanted = std::ranges::any_of(row.received, [](std::int32_t n) { return n > 0; });
    const std::int32_t expected = wanted ? next_visit++ : -1;
    if (row.visit != expected)
      visits.violations.push_back(fmt::format("{} was visited as number {}; {} is expected",
                                              entry_name(swept, i), row.visit, expected));
    for (std::size_t k = 0; k < row.inputs.size(); ++k) {
      const std::int32_t id = row.inputs[k];
      if (id < 0) continue;
      if (id >= row.output)
        order.violations.push_back(fmt::format(
            "{} uses value {}, which is no older than its result", entry_name(swept, i), id));
      if (row.visit >= 0 && row.given[k] == 0)
        given.violations.push_back(
            fmt::format("{} gave its input {}, value {}, nothing", entry_name(swept, i), k, id));
      sent[id] += row.given[k];
    }
    if (swept.rows[i].saved_bytes != 0)
      bytes.violations.push_back(fmt::format("{} still holds {} bytes after the sweep",
                                             entry_name(swept, i), swept.rows[i].saved_bytes));
  }
  const auto compare = [&](std::int32_t id, std::int32_t count, const std::string& what) {
    if (count != sent[id])
      received.violations.push_back(
          fmt::format("value {}, {}, received {} contributions of {}", id, what, count, sent[id]));
  };
  for (std::size_t i = 0; i < swept.rows.size(); ++i)
    for (std::size_t k = 0; k < swept.rows[i].received.size(); ++k)
      compare(swept.rows[i].output + static_cast<std::int32_t>(k), swept.rows[i].received[k],
              "of " + entry_name(swept, i));
  for (const TapeReport::Leaf& leaf : swept.leaves)
    compare(leaf.id, leaf.received, "leaf " + leaf.name);
  if (total != saved_bytes)
    bytes.violations.push_back(
        fmt::format("the entries saved {} bytes, the tape counts {}", total, saved_bytes));
  return {order, visits, given, received, bytes};
}

TapeAudit audit_tape(const Memformer& model, const TapeAuditOptions& options) {
  std::vector<Parameter> parameters = model.parameters();
  zero_grad(parameters);
  const AuditInputs inputs = audit_inputs(model, 1, options.batch, options.seed);
  const Segment& segment = inputs.segments.front();

  TapeAudit audit;
  for (const Parameter& parameter : parameters)
    audit.parameters.push_back(
        {parameter.name(), parameter.value().shape(), gradient_norm(parameter)});
  const CategoryScope category(Category::activation);
  Tape tape;
  StepResult step =
      model.step(Pass{tape, inputs.draws, Mode::train, {}}, segment, leaves_of(tape, inputs.entry));
  if (options.fault == PlantedTapeFault::forgotten_input)
    step.loss = record(ForgetfulAdd{}, step.loss, sum(step.outputs));
  std::vector<Seed> seeds;
  add_loss_seeds(seeds, step, 1.0 / static_cast<double>(segment.scored));
  for (const Seed& one : seeds) audit.seeds.emplace_back("loss", one.var.id);
  if (options.fault != PlantedTapeFault::drop_state_seed) {
    add_state_seeds(seeds, step.next,
                    random_like(values_of(step.next), RngKey{options.seed}.at("gradient")));
    for (const auto& state : step.next)
      if (state.value.on_tape()) audit.seeds.emplace_back("next " + state.name, state.value.id);
  }
  audit.recorded = tape.report();
  const std::int64_t saved_bytes = tape.saved_bytes();
  tape.backward(seeds);
  audit.swept = tape.report();
  audit.claims = claims_of(audit.recorded, audit.swept, saved_bytes, audit.seeds);

  std::map<std::string, const TapeReport::Leaf*> leaves;
  for (const TapeReport::Leaf& leaf : audit.swept.leaves)
    if (leaf.parameter) leaves[leaf.name] = &leaf;
  TapeClaim gradients{"every parameter has no gradient yet before the sweep, and one after it", {}};
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    SweptParameter& parameter = audit.parameters[i];
    parameter.after = gradient_norm(parameters[i]);
    if (const auto leaf = leaves.find(parameter.name); leaf != leaves.end()) {
      parameter.leaf = true;
      parameter.received = leaf->second->received;
    }
    if (parameter.before || !parameter.after)
      gradients.violations.push_back(fmt::format("{}: {} before, {} after", parameter.name,
                                                 describe_gradient(parameter.before),
                                                 describe_gradient(parameter.after)));
  }
  audit.claims.push_back(std::move(gradients));
  zero_grad(parameters);
  return audit;
}

Report report_of(const TapeAudit& audit, const std::string& model, int depth) {
  Report report("The tape of one segment",
                "Entries are recorded in topological order and visited in reverse; every gradient "
                "that an entry owes arrives, once; what was saved is freed.");
  report.paragraph(model);
  report.paragraph(fmt::format(
      "{} entries and {} leaves; {} bytes saved for the sweep, {} after it; seeds: {}",
      audit.recorded.rows.size(), audit.recorded.leaves.size(), audit.recorded.saved_bytes,
      audit.swept.saved_bytes, listed(audit.seeds, [](const auto& seed) {
        return fmt::format("{} (value {})", seed.first, seed.second);
      })));
  TreeTable tree{{{"module or entry", false},
                  {"entries"},
                  {"outputs", false},
                  {"saved bytes"},
                  {"visit"},
                  {"contributions"},
                  {"inputs", false}},
                 {},
                 depth};
  for (const Node& node : modules_of(audit.swept)) tree.rows.push_back(tree_row(node, audit));
  report.heading("Entries");
  report.tree(std::move(tree),
              "By module, in the order of recording. Outputs are id:shape, inputs ids, - a "
              "constant; visit is the place in the sweep, contributions are the gradients that "
              "the outputs received.");
  report.heading("Leaves");
  report.tree(leaves_tree(audit, depth),
              "Norms of gradients. \"none yet\" is not 0: nothing has arrived. A replayed layer's "
              "parameters get theirs past this tape.");

  report.heading("Claims");
  Table claims{{{"claim", false}, {"holds", false}}, {}};
  std::size_t broken = 0;
  for (const TapeClaim& claim : audit.claims) {
    claims.rows.push_back({claim.text, claim.violations.empty() ? "yes" : "NO"});
    constexpr std::size_t kShown = 10;
    for (std::size_t i = 0; i < std::min(kShown, claim.violations.size()); ++i)
      claims.rows.push_back({"  " + claim.violations[i], ""});
    if (claim.violations.size() > kShown)
      claims.rows.push_back({fmt::format("  and {} more", claim.violations.size() - kShown), ""});
    if (!claim.violations.empty()) ++broken;
  }
  report.table(std::move(claims));
  report.verdict(audit.holds(), broken == 0
                                    ? "every claim holds of this tape"
                                    : fmt::format("{} of {} claims do NOT hold of this tape",
                                                  broken, audit.claims.size()));
  return report;
}

std::string dot_of(const TapeAudit& audit, int depth) {
  const TapeReport& report = audit.swept;
  std::string dot =
      "digraph tape {\n  graph [bgcolor=transparent, fontname=Helvetica, fontsize=13];\n"
      "  node [shape=box, fontname=Helvetica, fontsize=13];\n"
      "  edge [fontname=Helvetica, fontsize=13];\n";
  draw(modules_of(report), audit, depth, 0, "m", dot);

  std::map<std::int32_t, std::pair<std::string, std::string>> made;  // by id: node and shape
  for (const TapeReport::Leaf& leaf : report.leaves) {
    if (leaf.parameter) continue;
    const std::string name = fmt::format("leaf{}", leaf.id);
    made[leaf.id] = {name, describe(leaf.shape)};
    dot += fmt::format("  {} [shape=ellipse, label={}];\n", name, quoted(leaf.name + " (input)"));
  }
  for (std::size_t i = 0; i < report.rows.size(); ++i)
    for (std::size_t k = 0; k < report.rows[i].shapes.size(); ++k)
      made[report.rows[i].output + static_cast<std::int32_t>(k)] = {
          drawn_in(report, i, depth), describe(report.rows[i].shapes[k])};

  std::map<std::pair<std::string, std::string>, std::set<std::string>> edges;  // with their shapes
  for (std::size_t i = 0; i < report.rows.size(); ++i)
    for (const std::int32_t id : report.rows[i].inputs) {
      const auto from = made.find(id);
      if (from == made.end()) continue;  // a constant or a parameter
      const std::string to = drawn_in(report, i, depth);
      if (from->second.first != to) edges[{from->second.first, to}].insert(from->second.second);
    }
  for (std::size_t i = 0; i < audit.seeds.size(); ++i) {
    const auto& [name, id] = audit.seeds[i];
    dot += fmt::format("  seed{} [shape=ellipse, label={}];\n", i, quoted(name + " (seed)"));
    edges[{made.at(id).first, fmt::format("seed{}", i)}].insert(made.at(id).second);
  }
  for (const auto& [ends, shapes] : edges) {
    std::string label;
    for (const std::string& shape : shapes) label += (label.empty() ? "" : "\n") + shape;
    dot += fmt::format("  {} -> {} [label={}];\n", quoted(ends.first), quoted(ends.second),
                       quoted(label));
  }
  return dot + "}\n";
}

int readable_depth(const TapeAudit& audit, std::size_t most) {
  int depth = 1;
  for (int deeper = 1; deeper < 16; ++deeper) {
    std::set<std::string> nodes;
    for (std::size_t i = 0; i < audit.swept.rows.size(); ++i)
      nodes.insert(drawn_in(audit.swept, i, deeper));
    if (nodes.size() > most) break;
    depth = deeper;
  }
  return depth;
}

}  // namespace mf
