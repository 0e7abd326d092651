#include "conformance.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <cfenv>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <numeric>
#include <random>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "tests/cuda/ptx/standin.h"

// Every result is compared with an own computation on the host, for the code of both targets and
// for three thread orders, and must be the same bits in all of them.
namespace conformance {
namespace {

template <class T>
class Buffer {
 public:
  explicit Buffer(std::size_t count) : count_(count) {
    REQUIRE(cudaMalloc(&data_, count * sizeof(T)) == cudaSuccess);
    cudaMemset(data_, 0, count * sizeof(T));
  }
  explicit Buffer(const std::vector<T>& values) : Buffer(values.size()) {
    cudaMemcpy(data_, values.data(), count_ * sizeof(T), cudaMemcpyHostToDevice);
  }
  ~Buffer() { cudaFree(data_); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  T* data() const { return static_cast<T*>(data_); }
  std::vector<T> values() const {
    std::vector<T> v(count_);
    REQUIRE(cudaMemcpy(v.data(), data_, count_ * sizeof(T), cudaMemcpyDeviceToHost) == cudaSuccess);
    return v;
  }

 private:
  std::size_t count_;
  void* data_ = nullptr;
};

template <class T>
bool agree(const T& a, const T& b) {
  if constexpr (std::is_floating_point_v<T>) {
    if (a != a && b != b) return true;  // the bits of a NaN depend on the generation
  }
  return std::memcmp(&a, &b, sizeof a) == 0;
}

template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), agree<T>);
}

/// Runs `compute` for each target and order; its result, which all must share.
template <class F>
auto in_each_setup(F compute) {
  using standin::Order;
  const standin::Settings before = standin::settings();
  decltype(compute()) first;
  bool is_first = true;
  for (const int arch : {75, 90}) {
    for (const Order order : {Order::forward, Order::reverse, Order::random}) {
      standin::settings().arch = arch;
      standin::settings().order = order;
      const auto result = compute();
      if (std::exchange(is_first, false)) first = result;
      CAPTURE(arch);
      CHECK(same_bits(result, first));
      CHECK(standin::take_reports().empty());
    }
  }
  standin::settings() = before;
  return first;
}

/// Result of a kernel with `count` results, all of one type.
template <class T, class F>
std::vector<T> results_of(std::size_t count, F launch) {
  return in_each_setup([&] {
    const Buffer<T> out(count);
    launch(out.data());
    return out.values();
  });
}

constexpr int kRoundings[] = {FE_TONEAREST, FE_DOWNWARD, FE_UPWARD, FE_TOWARDZERO};

/// f() under a rounding mode of the host.
template <class F>
auto rounded(int mode, F f) {
  std::fesetround(kRoundings[mode]);
  volatile auto result = f();
  std::fesetround(FE_TONEAREST);
  return decltype(f())(result);
}

std::vector<int> lane_values() {
  std::vector<int> v(kWarp);
  for (int l = 0; l < kWarp; ++l) v[static_cast<std::size_t>(l)] = 1000 + 7 * l;
  return v;
}

// ---- Warp operations ----

/// The lane that a shuffle reads, as the programming guide describes it by sections of `width`.
int source_lane(int mode, int width, int operand, int lane) {
  const int in_section = lane % width, section = lane - in_section;
  switch (mode) {
    case 0:
      return section + ((operand % width) + width) % width;
    case 1:
      return in_section - operand >= 0 ? lane - operand : lane;
    case 2:
      return in_section + operand < width ? lane + operand : lane;
    default: {
      const int other = lane ^ operand;
      return other < section + width ? other : lane;
    }
  }
}

TEST_CASE("shuffles: mode x width x operand x mask") {
  const auto values = lane_values();
  int cases = 0;
  for (const std::uint32_t mask : {0xffffffffu, 0x0000ffffu, 0xf0f0f0f0u, 0x80000001u}) {
    for (int mode = 0; mode < 4; ++mode) {
      for (int width = 1; width <= kWarp; width *= 2) {
        for (const int operand : {0, 1, 2, 3, 5, 8, 15, 16, 31}) {
          bool reads_outside = false;
          std::vector<int> want(kWarp, 0);
          for (int l = 0; l < kWarp; ++l) {
            if ((mask >> l & 1) == 0) continue;
            const int source = source_lane(mode, width, operand, l);
            reads_outside |= (mask >> source & 1) == 0;
            want[static_cast<std::size_t>(l)] = values[static_cast<std::size_t>(source)];
          }
          if (reads_outside) continue;  // no value is promised
          CAPTURE(mode);
          CAPTURE(width);
          CAPTURE(operand);
          CAPTURE(mask);
          const auto got = results_of<int>(kWarp, [&](int* out) {
            const Buffer<int> in(values);
            shuffle(mode, width, operand, mask, in.data(), out);
            cudaDeviceSynchronize();
          });
          CHECK(got == want);
          ++cases;
        }
      }
    }
  }
  MESSAGE("shuffle cases: ", cases);
  CHECK(cases > 250);
}

TEST_CASE("votes and matches") {
  std::vector<int> values(kWarp);
  for (int l = 0; l < kWarp; ++l) values[static_cast<std::size_t>(l)] = (l * 5) % 7 - 2;
  const std::vector<int> equal(kWarp, 3);
  for (const auto& in : {values, equal}) {
    for (const std::uint32_t mask : {0xffffffffu, 0x0000ffffu, 0xf0f0f0f0u, 0x00000010u}) {
      const auto got = results_of<std::uint32_t>(6 * kWarp, [&](std::uint32_t* out) {
        const Buffer<int> device(in);
        vote(mask, device.data(), out);
        cudaDeviceSynchronize();
      });
      std::uint32_t positive = 0;
      for (std::size_t l = 0; l < kWarp; ++l) positive |= (in[l] > 0 ? 1u : 0u) << l;
      positive &= mask;
      for (std::size_t l = 0; l < kWarp; ++l) {
        if ((mask >> l & 1) == 0) continue;
        std::uint32_t same = 0;
        for (std::size_t m = 0; m < kWarp; ++m) same |= (in[m] == in[l] ? 1u : 0u) << m;
        same &= mask;
        CHECK(got[6 * l] == positive);
        CHECK(got[6 * l + 1] == (positive != 0 ? 1 : 0));
        CHECK(got[6 * l + 2] == (positive == mask ? 1 : 0));
        CHECK(got[6 * l + 3] == same);
        CHECK(got[6 * l + 4] == (same == mask ? mask : 0));
        CHECK(got[6 * l + 5] == (same == mask ? 1 : 0));
      }
    }
  }
}

TEST_CASE("active mask and reductions of a warp") {
  const auto active = results_of<std::uint32_t>(kWarp, [](std::uint32_t* out) {
    active_mask(out);
    cudaDeviceSynchronize();
  });
  for (std::size_t l = 0; l < kWarp; ++l) {
    CHECK((active[l] >> l & 1) == 1);  // a lane is active to itself
  }
  const std::vector<int> values = {5, -3, 8, 1, 0, 7, -20, 2, 9, 4, 6, 11, -1, 3, 10, 12,
                                   5, -3, 8, 1, 0, 7, -20, 2, 9, 4, 6, 99, -1, 3, 10, 12};
  const auto got = results_of<int>(3 * kWarp, [&](int* out) {
    const Buffer<int> in(values);
    warp_reduce(in.data(), out);
    cudaDeviceSynchronize();
  });
  for (std::size_t l = 0; l < kWarp; ++l) {
    CHECK(got[3 * l] == std::accumulate(values.begin(), values.end(), 0));
    CHECK(got[3 * l + 1] == -20);
    CHECK(got[3 * l + 2] == 99);
  }
}

// ---- Atomics ----

TEST_CASE("atomics") {
  const auto got = in_each_setup([] {
    AtomicTotals start{};
    start.min = 1000, start.bits_and = 0xffffu, start.dec = 500;
    const Buffer<AtomicTotals> out(std::vector<AtomicTotals>{start});
    atomics(out.data());
    return out.values();
  })[0];
  constexpr int kThreads = 256;
  CHECK(got.add == kThreads * (kThreads - 1) / 2);
  CHECK(got.sub == -got.add);
  CHECK(got.max == kThreads - 1 - 100);
  CHECK(got.min == 100 - (kThreads - 1));
  CHECK(got.exchanged_times == 1);
  CHECK(got.inc == kThreads % 100);
  // The first takes it from above the limit to 99; the others go on down and around.
  CHECK(got.dec == (99 + 300 - (kThreads - 1)) % 100);
  CHECK(got.bits_and == 0xff00u);
  CHECK(got.bits_or == 0xffffffffu);
  std::uint32_t all = 0;
  for (std::uint32_t i = 0; i < kThreads; ++i) all ^= i;
  CHECK(got.bits_xor == all);
  CHECK(got.cas == 3 * kThreads);
  CHECK(got.add64 == std::uint64_t{kThreads} << 33);
  CHECK(got.max64 == std::uint64_t{kThreads - 1} << 40);
  CHECK(got.add_float == 0.5f * kThreads);
  CHECK(got.add_double == 0.25 * kThreads);
  CHECK(got.shared_add == 1'000'000 + 2 * kThreads);
}

// ---- Conversions and rounding ----

template <class T>
std::vector<T> awkward_values() {
  using Limits = std::numeric_limits<T>;
  std::vector<T> v = {T(0),
                      T(0.5),
                      T(1),
                      T(1.5),
                      T(2.5),
                      T(0.49999997),
                      T(1e-30),
                      T(3.7),
                      T(127.5),
                      T(255.5),
                      T(32767.5),
                      T(65504),
                      T(65519.99),
                      T(65520),
                      T(65536),
                      T(2147483520),
                      T(2147483648.0),
                      T(4294967040.0),
                      T(4294967296.0),
                      T(9.2e18),
                      T(9223372036854775808.0),
                      T(18446744073709551616.0),
                      T(1e30),
                      T(6.1e-5),
                      T(5.96e-8),
                      T(2.98e-8),
                      T(2.9e-8),
                      T(1.0009765625),
                      T(1.00048828125),
                      T(1.00146484375),
                      T(1.0 / 3),
                      T(16777217),
                      T(33554431),
                      Limits::denorm_min(),
                      Limits::min(),
                      Limits::max(),
                      Limits::infinity()};
  const std::size_t positive = v.size();
  for (std::size_t i = 0; i < positive; ++i) v.push_back(-v[i]);
  v.push_back(Limits::quiet_NaN());
  return v;
}

/// Rounds, clamps; NaN as PTX has it.
template <class To, class From>
std::int64_t want_integer(From x, int mode) {
  using Limits = std::numeric_limits<To>;
  if (x != x) {
    if (sizeof(To) == 4 && sizeof(From) == 4) return 0;
    return static_cast<std::int64_t>(static_cast<To>(std::uint64_t{1} << (8 * sizeof(To) - 1)));
  }
  const auto whole = static_cast<long double>(rounded(mode, [&] { return std::nearbyint(x); }));
  if (whole <= static_cast<long double>(Limits::min()))
    return static_cast<std::int64_t>(Limits::min());
  if (whole >= static_cast<long double>(Limits::max()))
    return static_cast<std::int64_t>(Limits::max());
  return static_cast<std::int64_t>(static_cast<To>(whole));
}

template <class From>
void check_to_integer(const std::function<void(const From*, std::int64_t*, int)>& run) {
  const auto values = awkward_values<From>();
  const std::size_t n = values.size();
  const auto got = results_of<std::int64_t>(16 * n, [&](std::int64_t* out) {
    const Buffer<From> in(values);
    run(in.data(), out, static_cast<int>(n));
    cudaDeviceSynchronize();
  });
  for (std::size_t i = 0; i < n; ++i) {
    const From x = values[i];
    CAPTURE(x);
    for (int mode = 0; mode < 4; ++mode) {
      const auto m = static_cast<std::size_t>(mode);
      CAPTURE(mode);
      CHECK(got[m * n + i] == want_integer<std::int32_t>(x, mode));
      CHECK(got[(4 + m) * n + i] == want_integer<std::uint32_t>(x, mode));
      CHECK(got[(8 + m) * n + i] == want_integer<std::int64_t>(x, mode));
      CHECK(got[(12 + m) * n + i] == want_integer<std::uint64_t>(x, mode));
    }
  }
}

TEST_CASE("floating point to integers") {
  check_to_integer<float>(float_to_integer);
  check_to_integer<double>(double_to_integer);
}

TEST_CASE("to float in four rounding modes") {
  const std::vector<std::int64_t> integers = {0,
                                              1,
                                              -1,
                                              16777216,
                                              16777217,
                                              16777219,
                                              -16777217,
                                              33554435,
                                              123456789012,
                                              (1ll << 62) + 1,
                                              std::numeric_limits<std::int64_t>::max(),
                                              std::numeric_limits<std::int64_t>::min()};
  const auto doubles = awkward_values<double>();
  const auto check = [](const auto& values, auto run) {
    const std::size_t n = values.size();
    using T = std::decay_t<decltype(values[0])>;
    const auto got = results_of<float>(4 * n, [&](float* out) {
      const Buffer<T> in(values);
      run(in.data(), out, static_cast<int>(n));
      cudaDeviceSynchronize();
    });
    for (int mode = 0; mode < 4; ++mode) {
      for (std::size_t i = 0; i < n; ++i) {
        volatile T x = values[i];
        CAPTURE(values[i]);
        CAPTURE(mode);
        const float want = rounded(mode, [&] { return static_cast<float>(x); });
        CHECK(agree(got[static_cast<std::size_t>(mode) * n + i], want));
      }
    }
  };
  check(integers, integer_to_float);
  check(doubles, double_to_float);
}

/// Nearest value of a small format by search among all of them: slow, but another way than the
/// interpreter's.
std::uint16_t nearest(float x, const std::vector<float>& all, std::uint16_t infinity) {
  const std::uint16_t sign = std::signbit(x) ? 0x8000 : 0;
  const auto magnitude = static_cast<double>(std::fabs(x));
  // Above the largest finite value by half a step: infinity.
  const double largest = static_cast<double>(all[infinity - 1u]);
  const double step = largest - static_cast<double>(all[infinity - 2u]);
  if (magnitude >= largest + step / 2) return static_cast<std::uint16_t>(sign | infinity);
  const auto up = std::lower_bound(all.begin(), all.begin() + infinity, magnitude,
                                   [](float a, double b) { return static_cast<double>(a) < b; });
  auto index = static_cast<std::size_t>(up - all.begin());
  if (index == infinity) --index;
  if (index > 0 && static_cast<double>(all[index]) != magnitude) {
    const double above = static_cast<double>(all[index]) - magnitude;
    const double below = magnitude - static_cast<double>(all[index - 1]);
    if (below < above || (below == above && (index - 1) % 2 == 0)) --index;
  }
  return static_cast<std::uint16_t>(sign | index);
}

TEST_CASE("half and bfloat16") {
  constexpr std::size_t kAll = 65536;
  const auto all = results_of<float>(2 * kAll, [](float* out) {
    from_small(out, out + kAll);
    cudaDeviceSynchronize();
  });
  const std::vector<float> halves(all.begin(), all.begin() + kAll);
  const std::vector<float> bfloats(all.begin() + kAll, all.end());
  for (std::uint32_t i = 0; i < kAll; ++i) {
    const float want = std::bit_cast<float>(i << 16);
    REQUIRE(agree(bfloats[i], want));
  }
  CHECK(halves[0x3c00] == 1.0f);
  CHECK(halves[0x7bff] == 65504.0f);
  CHECK(halves[0x0001] == std::ldexp(1.0f, -24));
  CHECK(halves[0x03ff] == std::ldexp(1023.0f, -24));
  CHECK(halves[0xc248] == -3.140625f);
  CHECK(std::isinf(halves[0x7c00]));
  CHECK(std::isnan(halves[0x7e00]));

  auto values = awkward_values<float>();
  values.pop_back();  // NaN has many encodings
  std::mt19937 random(1);
  for (int i = 0; i < 2000; ++i) {
    const auto exponent = static_cast<int>(random() % 60) - 30;
    values.push_back(std::ldexp(static_cast<float>(random() % (1u << 24)), exponent - 24));
  }
  const std::size_t n = values.size();
  const auto got = results_of<std::uint16_t>(2 * n, [&](std::uint16_t* out) {
    const Buffer<float> in(values);
    to_small(in.data(), out, out + n, static_cast<int>(n));
    cudaDeviceSynchronize();
  });
  for (std::size_t i = 0; i < n; ++i) {
    CAPTURE(values[i]);
    CHECK(got[i] == nearest(values[i], halves, 0x7c00));
    CHECK(got[n + i] == nearest(values[i], bfloats, 0x7f80));
  }
}

template <class T>
void check_rounding(const std::function<void(const T*, const T*, T*, int)>& run) {
  const auto values = awkward_values<T>();
  std::vector<T> as, bs;
  for (const T a : values) {
    for (const T b : {T(3), T(-0.1), T(1e-30), T(7e10), T(0)}) as.push_back(a), bs.push_back(b);
  }
  const std::size_t n = as.size();
  const auto got = results_of<T>(20 * n, [&](T* out) {
    const Buffer<T> a(as), b(bs);
    run(a.data(), b.data(), out, static_cast<int>(n));
    cudaDeviceSynchronize();
  });
  for (std::size_t i = 0; i < n; ++i) {
    volatile T a = as[i], b = bs[i];
    CAPTURE(as[i]);
    CAPTURE(bs[i]);
    for (int mode = 0; mode < 4; ++mode) {
      CAPTURE(mode);
      const T want[] = {rounded(mode, [&] { return T(a + b); }),
                        rounded(mode, [&] { return T(a * b); }),
                        rounded(mode, [&] { return T(a / b); }),
                        rounded(mode, [&] { return std::fma(T(a), T(b), T(a)); }),
                        rounded(mode, [&] { return std::sqrt(T(a)); })};
      for (std::size_t k = 0; k < 5; ++k) {
        CAPTURE(k);
        CHECK(agree(got[(4 * k + static_cast<std::size_t>(mode)) * n + i], want[k]));
      }
    }
  }
}

TEST_CASE("sums, products, quotients, fma and roots in four rounding modes") {
  check_rounding<float>(rounding_float);
  check_rounding<double>(rounding_double);
}

TEST_CASE("minimum, maximum and comparisons with NaN and signed zeros") {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> values = {0.0f, -0.0f, 1.0f, -2.0f, 0.3f, nan, HUGE_VALF, -HUGE_VALF};
  std::vector<float> as, bs;
  for (const float a : values) {
    for (const float b : values) as.push_back(a), bs.push_back(b);
  }
  const std::size_t n = as.size();
  const auto got = results_of<float>(kComparisonResults * n, [&](float* out) {
    const Buffer<float> a(as), b(bs);
    comparisons(a.data(), b.data(), out, static_cast<int>(n));
    cudaDeviceSynchronize();
  });
  for (std::size_t i = 0; i < n; ++i) {
    const float a = as[i], b = bs[i];
    CAPTURE(a);
    CAPTURE(b);
    float least = a < b || b != b ? a : b, most = a > b || b != b ? a : b;
    if (a == 0 && b == 0) {
      least = std::signbit(a) || std::signbit(b) ? -0.0f : 0.0f;
      most = std::signbit(a) && std::signbit(b) ? -0.0f : 0.0f;
    }
    CHECK(agree(got[i], least));
    CHECK(agree(got[n + i], most));
    const auto saturated = [](float x) { return x > 0 ? std::min(x, 1.0f) : 0.0f; };
    CHECK(got[2 * n + i] == saturated(a));
    CHECK(got[3 * n + i] == saturated(a + b));
    CHECK(got[4 * n + i] == saturated(std::fma(a, b, a)));
    const bool unordered = a != a || b != b;
    const bool ordered[] = {a == b, !unordered && a != b, a<b, a <= b, a> b, a >= b};
    for (std::size_t k = 0; k < 6; ++k) {
      CAPTURE(k);
      CHECK(got[(5 + k) * n + i] == (ordered[k] ? 1.0f : 0.0f));
      CHECK(got[(11 + k) * n + i] == (unordered || ordered[k] ? 1.0f : 0.0f));
    }
    CHECK(got[17 * n + i] == (unordered ? 0.0f : 1.0f));
    CHECK(got[18 * n + i] == (unordered ? 1.0f : 0.0f));
  }
}

// ---- Integers ----

__extension__ using Wide = __int128;

std::uint64_t reversed(std::uint64_t x, int bits) {
  std::uint64_t r = 0;
  for (int k = 0; k < bits; ++k) r |= (x >> k & 1) << (bits - 1 - k);
  return r;
}

/// Bits of `a` from `position` on; past the top copies of `fill_sign`'s bit or 0.
std::uint64_t field(std::uint64_t a, unsigned position, unsigned length, unsigned bits,
                    bool is_signed) {
  std::uint64_t r = 0;
  const bool sign =
      is_signed && length != 0 && (a >> std::min(position + length - 1, bits - 1) & 1) != 0;
  for (unsigned k = 0; k < bits; ++k) {
    const bool bit = k < length && position + k < bits ? (a >> (position + k) & 1) != 0 : sign;
    r |= static_cast<std::uint64_t>(bit) << k;
  }
  return r;
}

std::vector<std::uint64_t> want_integers(std::int64_t a, std::int64_t b) {
  using u32 = std::uint32_t;
  using u64 = std::uint64_t;
  using s64 = std::int64_t;
  const auto ua = static_cast<u64>(a), ub = static_cast<u64>(b);
  const auto ua32 = static_cast<u32>(a), ub32 = static_cast<u32>(b);
  const auto a32 = static_cast<std::int32_t>(a), b32 = static_cast<std::int32_t>(b);
  const bool overflows = a == std::numeric_limits<s64>::min() && b == -1;
  const auto product_high = static_cast<u64>(Wide{a} * b >> 64);
  const auto unsigned_high =
      static_cast<u64>((Wide{a} * b >> 64) + (a < 0 ? Wide{b} : 0) + (b < 0 ? Wide{a} : 0));
  const u64 pair = u64{ub32} << 32 | ua32;
  const unsigned n = ub32 & 127;
  const u64 left = n >= 64 ? 0 : ua << n;
  const auto right = static_cast<u64>(a >> std::min(n, 63u));
  u32 permuted = 0;
  for (const u32 choice : {7u, 10u, 3u, 1u}) {  // 0x7a31 from the top
    auto byte = static_cast<u32>(pair >> (8 * (choice & 7)) & 255);
    if ((choice & 8) != 0) byte = (byte & 128) != 0 ? 255 : 0;
    permuted = permuted << 8 | byte;
  }
  const unsigned right_shift = std::min(ub32 & 63, 32u);
  const u32 c = ua32 * 3;
  return {ua * ub,
          product_high,
          unsigned_high,
          b == 0      ? 0
          : overflows ? ua
                      : static_cast<u64>(a / b),
          b == 0 || overflows ? 0 : static_cast<u64>(a % b),
          ub == 0 ? 0 : ua / ub,
          ub == 0 ? 0 : ua % ub,
          static_cast<u64>(s64{a32} * b32),
          static_cast<u32>(static_cast<u64>(s64{a32} * b32) >> 32),
          static_cast<u32>(u64{ua32} * ub32 >> 32),
          static_cast<u64>(std::popcount(ua)),
          static_cast<u64>(std::countl_zero(ua)),
          static_cast<u64>(std::countl_zero(ua32)),
          reversed(ua, 64),
          reversed(ua32, 32),
          ua == 0 ? 0 : static_cast<u64>(std::countr_zero(ua)) + 1,
          permuted,
          static_cast<u32>((pair << (ub32 & 31)) >> 32),
          static_cast<u32>(pair >> right_shift),
          field(ua32, ub32 & 63, static_cast<unsigned>(ub >> 8) & 63, 32, false),
          field(ua, ub32 & 127, static_cast<unsigned>(ub >> 8) & 127, 64, true),
          (ua32 & ub32) | (ua32 & c) | (ub32 & c),
          left ^ right,
          static_cast<u64>(std::min(a, b)) ^ std::max(ua, ub)};
}

TEST_CASE("integer instructions") {
  using Limits = std::numeric_limits<std::int64_t>;
  std::vector<std::int64_t> as, bs;
  const std::vector<std::int64_t> edges = {0,
                                           1,
                                           -1,
                                           2,
                                           31,
                                           32,
                                           33,
                                           63,
                                           64,
                                           0x7fffffff,
                                           -0x80000000ll,
                                           0xffffffff,
                                           0x123456789abcdef,
                                           Limits::max(),
                                           Limits::min()};
  for (const auto a : edges) {
    for (const auto b : edges) as.push_back(a), bs.push_back(b);
  }
  std::mt19937_64 random(2);
  for (int i = 0; i < 500; ++i) {
    as.push_back(static_cast<std::int64_t>(random() >> (random() % 64)));
    bs.push_back(static_cast<std::int64_t>(random() >> (random() % 64)));
  }
  const std::size_t n = as.size();
  const auto got = results_of<std::uint64_t>(kIntegerResults * n, [&](std::uint64_t* out) {
    const Buffer<std::int64_t> a(as), b(bs);
    integers(a.data(), b.data(), out, static_cast<int>(n));
    cudaDeviceSynchronize();
  });
  for (std::size_t i = 0; i < n; ++i) {
    const auto want = want_integers(as[i], bs[i]);
    REQUIRE(want.size() == kIntegerResults);
    CAPTURE(as[i]);
    CAPTURE(bs[i]);
    for (std::size_t k = 0; k < want.size(); ++k) {
      CAPTURE(k);
      CHECK(got[k * n + i] == want[k]);
    }
  }
}

// ---- Barriers, local memory, calls, vectors, constants ----

TEST_CASE("barriers") {
  std::vector<int> values(128);
  for (int t = 0; t < 128; ++t) values[static_cast<std::size_t>(t)] = t % 100 - 3;
  const auto got = results_of<int>(4 * 128, [&](int* out) {
    const Buffer<int> in(values);
    barriers(in.data(), out);
    cudaDeviceSynchronize();
  });
  const auto positive = std::count_if(values.begin(), values.end(), [](int v) { return v > 0; });
  for (std::size_t t = 0; t < 128; ++t) {
    CHECK(got[4 * t] == positive);
    CHECK(got[4 * t + 1] == 1);
    CHECK(got[4 * t + 2] == 0);
    const std::size_t other = 127 - t;
    const int want = other < 64 ? values[other] * 100 : values[64 + (other + 1) % 64] * 10;
    CHECK(got[4 * t + 3] == want);
  }
}

TEST_CASE("local arrays, recursion and switches") {
  std::vector<int> values(50);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<int>((i * 37) % 101);
  const auto n = static_cast<int>(values.size());
  const auto got = results_of<int>(3 * values.size(), [&](int* out) {
    const Buffer<int> in(values);
    local_and_calls(in.data(), out, n);
    cudaDeviceSynchronize();
  });
  static constexpr int kFibonacci[] = {0, 1, 1, 2, 3, 5, 8, 13};
  for (std::size_t i = 0; i < values.size(); ++i) {
    int sum = 0;
    for (const int v : values) {
      const auto k = static_cast<std::size_t>(v & 15);
      sum += values[(i + k) % values.size()] * static_cast<int>(k + 1);
    }
    const int x = values[i];
    const int cases[] = {x + 1, x * x, ~x, x >> 2, x ^ 0x55, 7 - x, x % 5, -x};
    CHECK(got[3 * i] == sum);
    CHECK(got[3 * i + 1] == kFibonacci[x & 7]);
    CHECK(got[3 * i + 2] == cases[x & 7]);
  }
}

TEST_CASE("accesses of 1 to 16 bytes") {
  constexpr std::size_t kCount = 64;
  std::vector<float> values(kCount);
  for (std::size_t i = 0; i < kCount; ++i) values[i] = static_cast<float>(i) * 1.37f;
  const auto got = results_of<float>(8 * kCount, [&](float* out) {
    const Buffer<float> in(values);
    vectors(in.data(), out, kCount);
    cudaDeviceSynchronize();
  });
  static constexpr std::size_t kShifts[] = {1, 2, 4, 8, 8, 4, 16, 16};
  for (std::size_t k = 0; k < std::size(kShifts); ++k) {
    std::vector<char> bytes(kCount * sizeof(float));
    std::memcpy(bytes.data(), values.data(), bytes.size());
    std::rotate(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(kShifts[k]),
                bytes.end());
    CAPTURE(kShifts[k]);
    CHECK(std::memcmp(bytes.data(), got.data() + k * kCount, bytes.size()) == 0);
  }
}

TEST_CASE("constants and variables of a module") {
  const std::vector<int> index = {3, 0, 7, 5, 2, 2, 1};
  const auto n = static_cast<int>(index.size());
  const auto got = results_of<float>(4 * index.size(), [&](float* out) {
    const Buffer<int> in(index);
    set_constant(1.0f);
    constants(in.data(), out, n);
    set_constant(3.0f);
    constants(in.data(), out + 2 * n, n);
    cudaDeviceSynchronize();
  });
  for (std::size_t i = 0; i < index.size(); ++i) {
    CHECK(got[2 * i] == std::ldexp(1.0f, index[i]));
    CHECK(got[2 * (index.size() + i)] == 3 * std::ldexp(1.0f, index[i]));
    CHECK(got[2 * i + 1] == 42.0f);
  }
}

// ---- Maths ----

using Reference = long double (*)(long double);

struct Function {
  const char* name;
  Reference reference;
  double low, high;
  double float_ulps, double_ulps;  ///< allowed
};

constexpr long double kPi = 3.14159265358979323846264338327950288L;

long double cos_pi(long double x) {
  const long double r = std::fmod(std::fabs(x), 2.0L);
  return r == 0.5L || r == 1.5L ? 0.0L : std::cos(kPi * (r > 1 ? 2 - r : r));
}
long double sin_pi(long double x) {
  const long double r = std::fmod(x, 2.0L);
  return r == 0 || std::fabs(r) == 1 ? std::copysign(0.0L, x) : std::sin(kPi * r);
}

/// What NVIDIA states as the largest errors; 0 where the result is exactly rounded.
const std::vector<Function>& functions() {
  using L = long double;
  static const std::vector<Function> kTable = {
      {"exp", [](L x) { return std::exp(x); }, -20, 20, 1, 1},
      {"log", [](L x) { return std::log(x); }, 1e-6, 50, 1, 1},
      {"tanh", [](L x) { return std::tanh(x); }, -5, 5, 2, 2},
      {"erf", [](L x) { return std::erf(x); }, -4, 4, 2, 2},
      {"erfc", [](L x) { return std::erfc(x); }, -4, 9, 4, 5},
      {"normcdf", [](L x) { return std::erfc(-x * std::sqrt(0.5L)) / 2; }, -8, 8, 5, 7},
      {"sqrt", [](L x) { return std::sqrt(x); }, 0, 1e5, 0, 0},
      {"rsqrt", [](L x) { return 1 / std::sqrt(x); }, 1e-5, 1e5, 2, 1},
      {"log1p", [](L x) { return std::log1p(x); }, -0.9, 10, 1, 1},
      {"expm1", [](L x) { return std::expm1(x); }, -5, 5, 1, 1},
      {"cos", [](L x) { return std::cos(x); }, -1e6, 1e6, 2, 2},
      {"sin", [](L x) { return std::sin(x); }, -1e6, 1e6, 2, 2},
      {"sincospi", [](L x) { return x < 0 ? sin_pi(x) : cos_pi(x); }, -10, 10, 2, 2},
      {"cospi", cos_pi, -10, 10, 1, 2},
      {"exp2", [](L x) { return std::exp2(x); }, -30, 30, 2, 1},
      {"log2", [](L x) { return std::log2(x); }, 1e-6, 50, 1, 1},
      {"pow", [](L x) { return std::pow(x, 1.75L); }, 0.01, 100, 4, 2},
      {"reciprocal", [](L x) { return 1 / x; }, 0.001, 1000, 0, 0},
      {"cbrt", [](L x) { return std::cbrt(x); }, -100, 100, 1, 1},
      {"atan2", [](L x) { return std::atan2(x, 2.0L); }, -10, 10, 3, 2},
      {"fmod", nullptr, -50, 50, 0, 0},
      {"round", [](L x) { return std::round(x); }, -5, 5, 0, 0},
      {"rint", [](L x) { return std::rint(x); }, -5, 5, 0, 0},
      {"floor-trunc", [](L x) { return std::floor(x) - std::trunc(x); }, -5, 5, 0, 0},
  };
  return kTable;
}

template <class T>
long double reference(const Function& f, T x) {
  if (f.reference != nullptr) return f.reference(static_cast<long double>(x));
  return static_cast<long double>(std::fmod(x, T(0.7)));  // exact in any type
}

/// Distance of `got` from the exact value in units of the last place of T.
template <class T>
double ulps(T got, long double want) {
  if (std::isnan(want)) return std::isnan(got) ? 0 : HUGE_VAL;
  const T nearest = static_cast<T>(want);
  if (got == nearest) return 0;
  if (std::isinf(nearest) || std::isnan(got)) return HUGE_VAL;
  const T magnitude = std::fabs(nearest);
  const T next = std::nextafter(magnitude, std::numeric_limits<T>::infinity());
  return static_cast<double>(std::fabs(static_cast<long double>(got) - want) /
                             static_cast<long double>(next - magnitude));
}

template <class T>
void check_function(int which, const std::function<void(int, const T*, T*, int)>& run) {
  const Function& f = functions()[static_cast<std::size_t>(which)];
  constexpr int kPoints = 300;
  std::vector<T> values;
  for (int i = 0; i <= kPoints; ++i) {
    values.push_back(static_cast<T>(f.low + (f.high - f.low) * i / kPoints));
  }
  for (const T special :
       {T(0), T(1), std::numeric_limits<T>::infinity(), std::numeric_limits<T>::quiet_NaN()}) {
    values.push_back(special);
  }
  const auto got = results_of<T>(values.size(), [&](T* out) {
    const Buffer<T> in(values);
    run(which, in.data(), out, static_cast<int>(values.size()));
    cudaDeviceSynchronize();
  });
  const std::string name = f.name;
  CAPTURE(name);
  const double allowed = sizeof(T) == 4 ? f.float_ulps : f.double_ulps;
  double worst = 0;
  for (std::size_t i = 0; i < values.size(); ++i) {
    const T x = values[i];
    CAPTURE(x);
    CAPTURE(got[i]);
    const double error = ulps(got[i], reference(f, x));
    CHECK(error <= allowed + 0.5);  // stated against the rounded value
    worst = std::max(worst, error);
  }
  const std::string type = sizeof(T) == 4 ? "float" : "double";
  MESSAGE(name, " ", type, ": ", worst, " ulp, allowed ", allowed);
}

TEST_CASE("maths functions stay within their stated errors") {
  REQUIRE(functions().size() == kFunctions);
  for (int which = 0; which < kFunctions; ++which) {
    check_function<float>(which, function_float);
    check_function<double>(which, function_double);
  }
}

}  // namespace
}  // namespace conformance
