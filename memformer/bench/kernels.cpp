#include "memformer/bench/kernels.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>

#include "autograd/ops.h"
#include "memformer/bench/peak.h"
#include "tensor/backend.h"
#include "tensor/cpu/isa.h"
#include "tensor/cpu/parallel.h"
#include "tensor/math.h"

namespace mf::bench {
namespace {

using Json = nlohmann::ordered_json;

struct KernelCase {
  std::string family, name;
  Rate rate;
  double work;  // FLOP, bytes or ops of one call
  std::function<void()> call;
};

/// A large array of random numbers: cases take turns, so they can share operands.
class Pool {
 public:
  Pool(std::int64_t blocks, RngKey key, const KernelOptions& options)
      : all_(uniform({kBlock}, key, -1.0, 1.0, options.dtype)
                 .expand({blocks, kBlock})
                 .clone()
                 .to(options.device)
                 .reshape({blocks * kBlock})) {}
  Tensor take(const Shape& shape) const {
    return all_.slice(0, 0, shape.elements()).reshape(shape);
  }
  /// As many as there are, one behind the other.
  std::vector<Tensor> take_all(const Shape& shape) const {
    std::vector<Tensor> parts;
    const std::int64_t size = shape.elements();
    for (std::int64_t end = size; end <= all_.elements(); end += size)
      parts.push_back(all_.slice(0, end - size, end).reshape(shape));
    return parts;
  }

 private:
  // Not a power of two: rows of a matrix must not be copies of each other.
  static constexpr std::int64_t kBlock = 65539;
  Tensor all_;
};

/// Extents of operands. A GPU holds 2^20 numbers in its cache, and small products are over before
/// it is full.
struct Sizes {
  std::vector<std::int64_t> squares, tokens;
  std::int64_t batch;      // products at once
  std::int64_t sequences;  // that attention reads
  std::int64_t rows;       // of kRowWidth numbers
  std::int64_t numbers;    // of the largest operand
};
const Sizes kCpuSizes{.squares = {256, 512, 1024, 2048},
                      .tokens = {512, 1024, 4096},
                      .batch = 64,
                      .sequences = 8,
                      .rows = 4096,
                      .numbers = 4096 * 4096};
const Sizes kGpuSizes{.squares = {256, 512, 1024, 2048, 4096, 8192},
                      .tokens = {512, 1024, 4096, 16384},
                      .batch = 1024,
                      .sequences = 128,
                      .rows = std::int64_t{1} << 18,
                      .numbers = std::int64_t{1} << 26};
constexpr std::int64_t kRowWidth = 256;

const Sizes& sizes_of(const KernelOptions& options) {
  return options.device == cpu || options.small ? kCpuSizes : kGpuSizes;
}

/// Collects the cases that pass the filter.
class Catalogue {
 public:
  explicit Catalogue(const KernelOptions& options) : sizes(sizes_of(options)), options_(options) {}

  void add(const std::string& family, const std::string& name, Rate rate, double work,
           std::function<void()> call) {
    if (lower(family + ": " + name).find(lower(options_.filter)) == std::string::npos) return;
    cases.push_back({family, name, rate, work, std::move(call)});
  }
  DType dtype() const { return options_.dtype; }
  Device device() const { return options_.device; }
  double element() const { return static_cast<double>(size_of(options_.dtype)); }
  /// Bytes of the operands of memory-bound kernels.
  double pass() const { return element() * static_cast<double>(sizes.rows * kRowWidth); }

  const Sizes& sizes;
  std::vector<KernelCase> cases;

 private:
  static std::string lower(std::string text) {
    for (char& c : text) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    return text;
  }
  const KernelOptions& options_;
};

std::string extents(std::int64_t rows, std::int64_t columns, std::int64_t inner) {
  return fmt::format("{}x{}x{}", rows, columns, inner);
}

double flops(std::int64_t rows, std::int64_t columns, std::int64_t inner) {
  return 2.0 * static_cast<double>(rows) * static_cast<double>(columns) *
         static_cast<double>(inner);
}

void add_square_products(Catalogue& list, const Pool& x, const Pool& w) {
  for (const std::int64_t n : list.sizes.squares)
    list.add("square", extents(n, n, n), Rate::gflops, flops(n, n, n),
             [a = x.take({n, n}), b = w.take({n, n})] { matmul(a, b); });
}

/// y = x W with x [tokens, in], and the two products of its backward.
void add_projections(Catalogue& list, const Pool& x, const Pool& w, const Pool& g) {
  for (const std::int64_t tokens : list.sizes.tokens)
    for (const std::int64_t d : {256, 512, 1024})
      for (const auto& [in, out] : {std::pair{d, d}, {d, 4 * d}, {4 * d, d}}) {
        const Tensor input = x.take({tokens, in}), weight = w.take({in, out});
        const Tensor gradient = g.take({tokens, out});
        const double work = flops(tokens, in, out);
        list.add("transformer NN", extents(tokens, out, in), Rate::gflops, work,
                 [=] { matmul(input, weight); });
        list.add("transformer NT", extents(tokens, in, out), Rate::gflops, work,
                 [=] { matmul(gradient, weight.transpose()); });
        list.add("transformer TN", extents(in, out, tokens), Rate::gflops, work,
                 [=] { matmul(input.transpose(), gradient); });
      }
}

/// y = x W of one row's segment. Each call takes the next weights: a model has read all its others
/// before it comes back to one, which has left the cache by then.
void add_segment_products(Catalogue& list, const Pool& x, const Pool& w) {
  constexpr std::int64_t kTokens = 64, d = 512;
  for (const auto& [in, out] : {std::pair{d, d}, {d, 4 * d}, {4 * d, d}})
    list.add(
        "segment NN", extents(kTokens, out, in), Rate::gflops, flops(kTokens, out, in),
        [input = x.take({kTokens, in}), weights = w.take_all({in, out}),
         next = std::size_t{0}]() mutable { matmul(input, weights[next++ % weights.size()]); });
}

/// 64 products at a time, as of 8 rows with 8 heads; on a GPU of 128 rows.
void add_batched_products(Catalogue& list, const Pool& x, const Pool& g) {
  const std::int64_t batch = list.sizes.batch;
  struct Extents {
    std::int64_t rows, columns, inner;
  };
  for (const auto& [m, n, k] : {Extents{64, 64, 64},
                                {128, 128, 32},
                                {128, 128, 64},
                                {128, 128, 128},
                                {256, 256, 32},
                                {32, 160, 32}}) {
    const Tensor a = x.take({batch, m, k}), b = g.take({batch, k, n});
    const Tensor rows_of_a = x.take({batch, k, m}), rows_of_b = g.take({batch, n, k});
    const double work = static_cast<double>(batch) * flops(m, n, k);
    list.add("batched NN", extents(m, n, k), Rate::gflops, work, [=] { matmul(a, b); });
    list.add("batched NT", extents(m, n, k), Rate::gflops, work,
             [=] { matmul(a, rows_of_b.transpose()); });
    list.add("batched TN", extents(m, n, k), Rate::gflops, work,
             [=] { matmul(rows_of_a.transpose(), b); });
  }
}

/// Forward and backward: six products of T x S x D, of which causal attention needs half.
void add_attention(Catalogue& list, const Pool& x, const Pool& g) {
  struct Extents {
    std::int64_t queries, keys, depth;
    bool causal;
  };
  constexpr std::int64_t kHeads = 8;
  const std::int64_t rows = list.sizes.sequences;
  for (const auto& [t, s, d, causal] : {Extents{128, 128, 32, false},
                                        {128, 128, 32, true},
                                        {128, 32, 32, false},
                                        {256, 256, 64, false}}) {
    // Heads are views into rows of kHeads * d, as the model has them.
    const auto heads = [&, d = d](const Pool& pool, std::int64_t length) {
      return pool.take({rows, length, kHeads, d}).permute({0, 2, 1, 3});
    };
    AttentionOptions options;
    options.causal = causal;
    const Tensor query = heads(x, t), key = heads(g, s), value = heads(x, s), gout = heads(g, t);
    list.add("attention", fmt::format("{}x{}x{}{}", t, s, d, causal ? " causal" : ""), Rate::gflops,
             6.0 * static_cast<double>(rows * kHeads) * flops(t, s, d) * (causal ? 0.5 : 1.0), [=] {
               const AttentionResult result = attention(query, key, value, {}, {}, options);
               attention_backward(query, key, value, {}, {}, options, result.out, result.log_sum,
                                  gout, {});
             });
  }
}

void add_elementwise(Catalogue& list, const Pool& x, const Pool& g) {
  const std::int64_t rows = list.sizes.rows;
  const Tensor a = x.take({rows, kRowWidth}), b = g.take({rows, kRowWidth});
  const auto add_case = [&](const char* name, int passes, std::function<void()> call) {
    list.add("elementwise", name, Rate::gbytes, passes * list.pass(), std::move(call));
  };
  add_case("add", 3, [=] { add(a, b); });
  add_case("mul", 3, [=] { mul(a, b); });
  add_case("exp", 2, [=] { exp(a); });
  add_case("tanh", 2, [=] { tanh(a); });
  add_case("gelu", 2, [=] { gelu(a); });
  add_case("gelu backward", 3, [=] { map_backward(Unary::gelu, a, a, b); });
}

void add_rows(Catalogue& list, const Pool& x, const Pool& g) {
  const std::int64_t rows = list.sizes.rows;
  const Tensor a = x.take({rows, kRowWidth}), b = g.take({rows, kRowWidth});
  const auto add_case = [&](const char* name, int passes, std::function<void()> call) {
    list.add("rows", name, Rate::gbytes, passes * list.pass(), std::move(call));
  };
  add_case("softmax", 2, [=] { softmax(a); });
  const Tensor y = softmax(a);
  add_case("softmax backward", 3, [=] { softmax_backward(y, b); });
  const Tensor gain = full({kRowWidth}, 1.0, list.dtype(), list.device());
  const Tensor bias = zeros({kRowWidth}, list.dtype(), list.device());
  add_case("layer norm", 2, [=] { layer_norm(a, gain, bias, 1e-5); });
  const LayerNormResult normed = layer_norm(a, gain, bias, 1e-5);
  add_case("layer norm backward", 3,
           [=] { layer_norm_backward(a, gain, normed.mean, normed.rstd, b, true, true, true); });
  std::vector<std::int32_t> classes(static_cast<std::size_t>(rows));
  for (std::size_t i = 0; i < classes.size(); ++i)
    classes[i] = static_cast<std::int32_t>(RngKey{3}.below(kRowWidth, i));
  const Tensor targets = from_host(classes, {rows}, list.device());
  const Tensor weight = scalar(1.0 / static_cast<double>(rows), list.dtype(), list.device());
  add_case("cross entropy, forward and backward", 2, [=] {
    const CrossEntropyResult result = cross_entropy(a, targets, {}, -1);
    cross_entropy_backward(a, targets, {}, -1, result.log_sum, weight);
  });
}

void add_optimizer(Catalogue& list, const Pool& g) {
  const Tensor gradient = g.take({list.sizes.rows, kRowWidth});
  list.add("optimizer", "adam", Rate::gbytes, 7.0 * list.pass(),
           [gradient, p = zeros_like(gradient), m = zeros_like(gradient), v = zeros_like(gradient),
            step = std::int64_t{0}]() mutable { adam_(p, gradient, 1.0, {}, ++step, m, v); });
}

/// What an op costs besides its work: sixteen numbers are as good as none.
void add_overhead(Catalogue& list) {
  constexpr int kOps = 1000;
  const Tensor a = full({16}, 0.5, list.dtype(), list.device());
  const Tensor b = full({16}, 1.0, list.dtype(), list.device());
  const auto chain = [a, b](bool backward) {
    Tape tape;
    const Var factor = tape.input(b);
    Var x = tape.input(a);
    for (int i = 0; i < kOps; ++i) x = mul(x, factor);
    if (backward) tape.backward({{x, b}});
  };
  list.add("overhead", "mul of 16, not recorded", Rate::nanoseconds, kOps, [a, b] {
    for (int i = 0; i < kOps; ++i) mul(a, b);
  });
  list.add("overhead", "mul of 16, recorded", Rate::nanoseconds, kOps, [chain] { chain(false); });
  list.add("overhead", "mul of 16, recorded and swept", Rate::nanoseconds, kOps,
           [chain] { chain(true); });
}

std::vector<KernelCase> kernel_cases(const KernelOptions& options) {
  Catalogue list(options);
  const RngKey key{1};
  const std::int64_t largest = list.sizes.numbers >> 16;  // blocks
  const std::int64_t square = list.sizes.squares.back();
  const Pool x(largest, key.at("x"), options), g(largest, key.at("g"), options);
  const Pool w(square * square >> 16, key.at("w"), options);
  add_square_products(list, x, w);
  add_projections(list, x, w, g);
  add_segment_products(list, x, w);
  add_batched_products(list, x, g);
  add_attention(list, x, g);
  add_elementwise(list, x, g);
  add_rows(list, x, g);
  add_optimizer(list, g);
  add_overhead(list);
  check(!list.cases.empty(),
        "bench kernels: no case has '{}' in its name; names are 'square: 256x256x256', "
        "'transformer TN: ..', 'batched NT: ..', 'attention: ..', 'elementwise: gelu', "
        "'rows: softmax', 'optimizer: adam', 'overhead: ..'",
        options.filter);
  return std::move(list.cases);
}

constexpr double kRepetition = 4e-3;  // seconds

/// Repetitions of one case, and what they were compared with.
struct Samples {
  std::vector<double> values, percents;
  std::int64_t calls = 0;  // in a repetition; 0: not known yet
  std::int64_t disturbed = 0;
};

/// What repetitions are compared with.
class References {
 public:
  References(DType dtype, Device device, std::int64_t numbers) {
    if (device == cpu)
      cpu_.emplace(dtype, numbers);
    else
      copy_.emplace(dtype, numbers, device);
  }

  /// FLOP/s or bytes/s of now; NaN for what is compared with nothing, and if it was disturbed.
  double of(Rate rate) {
    if (cpu_ && rate == Rate::gflops) return note(all, cpu_->all.measure());
    if (cpu_ && rate == Rate::gbytes) return note(triad, cpu_->memory.triad());
    if (copy_ && rate == Rate::gbytes) return note(copy, copy_->measure());
    return std::numeric_limits<double>::quiet_NaN();
  }
  /// Once in a round: all of them, so that the report has them whatever cases ran.
  void measure_all() {
    if (copy_) {
      note(copy, copy_->measure());
      return;
    }
    note(one, cpu_->one.measure());
    note(all, cpu_->all.measure());
    note(copy, cpu_->memory.copy());
    note(triad, cpu_->memory.triad());
  }

  std::vector<double> one, all, copy, triad;  // GFLOP/s and GB/s

 private:
  struct Cpu {
    Cpu(DType dtype, std::int64_t numbers)
        : one(dtype, false), all(dtype, true), memory(dtype, numbers) {}
    FmaPeak one, all;
    Bandwidth memory;
  };

  static double note(std::vector<double>& values, double value) {
    if (std::isfinite(value)) values.push_back(value / 1e9);
    return value;
  }
  std::optional<Cpu> cpu_;
  std::optional<CopySpeed> copy_;
};

/// `calls` calls, until their work is done.
Times time_of(const KernelCase& kernel, std::int64_t calls, Device device) {
  const Stopwatch stopwatch;
  for (std::int64_t i = 0; i < calls; ++i) kernel.call();
  synchronize(device);
  return stopwatch.elapsed();
}

void repeat(const KernelCase& kernel, Device device, Samples& samples, References& references) {
  if (samples.calls == 0) {
    time_of(kernel, 1, device);  // takes its memory from the system
    samples.calls = std::max<std::int64_t>(
        1, std::llround(kRepetition / std::max(1e-9, time_of(kernel, 1, device).wall)));
  }
  const double reference = references.of(kernel.rate);
  const Times times = time_of(kernel, samples.calls, device);
  const bool compared = is_compared(kernel.rate, device);
  if ((device == cpu && !undisturbed(times)) || (compared && !std::isfinite(reference))) {
    ++samples.disturbed;
    return;
  }
  const double work = static_cast<double>(samples.calls) * kernel.work;
  const bool time = kernel.rate == Rate::nanoseconds;
  samples.values.push_back(time ? times.wall / work * 1e9 : work / times.wall / 1e9);
  if (compared) samples.percents.push_back(100.0 * work / times.wall / reference);
}

/// In the order in which they first appear.
std::vector<std::string> names_of_families(const std::vector<KernelCase>& cases) {
  std::vector<std::string> names;
  for (const KernelCase& kernel : cases)
    if (std::ranges::find(names, kernel.family) == names.end()) names.push_back(kernel.family);
  return names;
}

KernelFamily family_of(const std::string& name, const KernelReport& report) {
  const double nothing = std::numeric_limits<double>::quiet_NaN();
  KernelFamily family{name, Rate::gflops, "", nothing, nothing, nothing, ""};
  std::vector<double> medians;
  for (const KernelResult& result : report.cases) {
    if (result.family != name) continue;
    family.rate = result.rate;
    const bool compared = is_compared(result.rate, report.device);
    family.unit = compared ? "percent" : unit_of(result.rate);
    const bool time = result.rate == Rate::nanoseconds;
    const double value = compared ? result.percent.median : result.value.median;
    if (!std::isfinite(value)) continue;
    const auto better = [time](double x, double y) { return time ? x < y : x > y; };
    if (medians.empty() || better(family.worst, value)) {
      family.worst = value;
      family.worst_name = result.name;
    }
    if (medians.empty() || better(value, family.best)) family.best = value;
    medians.push_back(value);
  }
  family.mean = geometric_mean(medians);
  return family;
}

Json number(double value) { return std::isfinite(value) ? Json(value) : Json(nullptr); }
Json to_json(const Spread& spread) {
  return {
      {"median", number(spread.median)}, {"p10", number(spread.low)}, {"p90", number(spread.high)}};
}

}  // namespace

const char* unit_of(Rate rate) {
  switch (rate) {
    case Rate::gflops:
      return "GFLOP/s";
    case Rate::gbytes:
      return "GB/s";
    case Rate::nanoseconds:
      return "ns";
  }
  return "";
}

bool is_compared(Rate rate, Device device) {
  return rate == Rate::gbytes || (rate == Rate::gflops && device == cpu);
}

KernelReport bench_kernels(const KernelOptions& options) {
  check(options.seconds >= 0.0, "bench kernels: seconds is {}; it must not be negative",
        options.seconds);
  const std::vector<KernelCase> cases = kernel_cases(options);
  std::vector<Samples> samples(cases.size());
  References references(options.dtype, options.device, sizes_of(options).rows * kRowWidth);
  KernelReport report;
  const Stopwatch stopwatch;
  do {
    references.measure_all();
    for (std::size_t i = 0; i < cases.size(); ++i)
      repeat(cases[i], options.device, samples[i], references);
    ++report.rounds;
  } while (stopwatch.elapsed().wall < options.seconds);

  report.dtype = options.dtype;
  report.device = options.device;
  report.threads = threads();
  report.isa = name_of(current_isa());
  report.peak_one = spread_of(references.one);
  report.peak_all = spread_of(references.all);
  report.copy = spread_of(references.copy);
  report.triad = spread_of(references.triad);
  const std::vector<std::string> families = names_of_families(cases);
  for (const std::string& family : families)
    for (std::size_t i = 0; i < cases.size(); ++i)
      if (cases[i].family == family)
        report.cases.push_back({family, cases[i].name, cases[i].rate, spread_of(samples[i].values),
                                spread_of(samples[i].percents), std::ssize(samples[i].values),
                                samples[i].disturbed});
  for (const std::string& family : families) report.families.push_back(family_of(family, report));
  return report;
}

std::string to_json(const KernelReport& report) {
  Json json{{"dtype", name_of(report.dtype)},
            {"device", full_name(report.device)},
            {"threads", report.threads},
            {"isa", report.isa},
            {"rounds", report.rounds},
            {"fma_peak_one_thread", to_json(report.peak_one)},
            {"fma_peak", to_json(report.peak_all)},
            {"copy", to_json(report.copy)},
            {"triad", to_json(report.triad)},
            {"cases", Json::array()},
            {"families", Json::array()}};
  for (const KernelResult& result : report.cases)
    json["cases"].push_back({{"family", result.family},
                             {"name", result.name},
                             {"unit", unit_of(result.rate)},
                             {"value", to_json(result.value)},
                             {"percent", to_json(result.percent)},
                             {"kept", result.kept},
                             {"disturbed", result.disturbed}});
  for (const KernelFamily& family : report.families)
    json["families"].push_back({{"name", family.name},
                                {"unit", family.unit},
                                {"geometric_mean", number(family.mean)},
                                {"worst", number(family.worst)},
                                {"worst_name", family.worst_name},
                                {"best", number(family.best)}});
  return json.dump();
}

}  // namespace mf::bench
