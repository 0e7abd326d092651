#include "memformer/audit/figure.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "memformer/audit/report.h"
#include "tensor/error.h"

namespace mf {
namespace {

// Pixels of a drawing's own coordinates; the page scales it as a whole.
constexpr double kWidth = 760.0, kHeight = 380.0;
constexpr double kLeft = 92.0, kRight = 24.0, kTop = 44.0, kBottom = 62.0;
constexpr double kCharacter = 7.2;  // width of a letter at 13 px, on the large side
constexpr int kColours = 6;         // classes c0 .. c5 of the page

/// The opening of a drawing: its title and its words come first in the element, as screen readers
/// expect.
std::string opened(double width, double height, const std::string& title,
                   const std::string& words) {
  return fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0:.0f}\" height=\"{1:.0f}\" "
      "viewBox=\"0 0 {0:.0f} {1:.0f}\" role=\"img\" style=\"aspect-ratio:{0:.0f}/{1:.0f}\">"
      "<title>{2}</title><desc>{3}</desc>\n<text class=\"title\" x=\"8.0\" y=\"20\">{2}</text>\n",
      width, height, escaped(title), escaped(words));
}

std::string text_at(double x, double y, const std::string& text, const char* anchor = "middle") {
  return fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\">{}</text>\n", x, y, anchor,
                     escaped(text));
}

/// Turned by a quarter, reading upwards.
std::string upright_text(double x, double y, const std::string& text) {
  return fmt::format(
      "<text transform=\"translate({:.1f},{:.1f}) rotate(-90)\" text-anchor=\"middle\">{}</text>\n",
      x, y, escaped(text));
}

/// A number with as few digits as tell it apart.
std::string short_number(double value) {
  const bool count = value == std::floor(value) && std::abs(value) < 1e6;
  return count ? fmt::format("{:.0f}", value) : fmt::format("{:.4g}", value);
}

/// One direction of a chart: values to pixels, and where the ticks stand.
class Axis {
 public:
  Axis(double low, double high, bool logarithmic, double first_pixel, double last_pixel)
      : logarithmic_(logarithmic), first_(first_pixel), last_(last_pixel) {
    if (logarithmic_) {
      low_ = std::log2(low);
      high_ = std::log2(high);
    } else {
      low_ = low;
      high_ = high;
    }
    if (high_ <= low_) high_ = low_ + 1.0;
  }

  double at(double value) const {
    const double x = logarithmic_ ? std::log2(value) : value;
    return first_ + (x - low_) / (high_ - low_) * (last_ - first_);
  }

  /// `round`: on a logarithmic axis 1, 2 and 5 times powers of ten instead of powers of two.
  std::vector<double> ticks(bool round = false) const {
    std::vector<double> values;
    if (logarithmic_ && round) {
      for (double power = std::pow(10.0, std::floor(low_ * std::log10(2.0)));
           power <= std::exp2(high_); power *= 10.0)
        for (const double factor : {1.0, 2.0, 5.0})
          if (const double tick = factor * power;
              tick >= std::exp2(low_) && tick <= std::exp2(high_))
            values.push_back(tick);
      // Too close to each other: the powers alone.
      if (values.size() > 12)
        std::erase_if(values, [](double tick) {
          const double power = std::log10(tick);
          return std::abs(power - std::round(power)) > 1e-9;
        });
      if (values.size() < 2) values = {std::exp2(low_), std::exp2(high_)};
      return values;
    }
    if (logarithmic_) {
      const double step = std::max(1.0, std::ceil((high_ - low_) / 8.0));
      for (double power = std::ceil(low_ - 1e-9); power <= high_ + 1e-9; power += step)
        values.push_back(std::exp2(power));
      if (values.size() < 2) values = {std::exp2(low_), std::exp2(high_)};
      return values;
    }
    const double raw = (high_ - low_) / 6.0;
    const double power = std::pow(10.0, std::floor(std::log10(raw)));
    double step = 10.0 * power;
    for (const double factor : {1.0, 2.0, 5.0})
      if (raw <= factor * power) {
        step = factor * power;
        break;
      }
    for (double tick = std::ceil(low_ / step - 1e-9) * step; tick <= high_ + 1e-9 * step;
         tick += step)
      values.push_back(std::abs(tick) < 1e-9 * step ? 0.0 : tick);
    return values;
  }

 private:
  bool logarithmic_;
  double low_, high_, first_, last_;
};

std::string y_text(double value, bool bytes) {
  return bytes ? readable_bytes(static_cast<std::int64_t>(std::llround(value)))
               : short_number(value);
}

/// Frame, grid, ticks and labels of a chart.
std::string frame(const Axis& x, const Axis& y, const std::string& x_label,
                  const std::string& y_label, bool y_is_bytes) {
  std::string svg;
  const double bottom = kHeight - kBottom, right = kWidth - kRight;
  for (const double tick : y.ticks(true)) {
    svg += fmt::format("<path class=\"grid\" d=\"M{:.1f} {:.1f}H{:.1f}\"/>\n", kLeft, y.at(tick),
                       right);
    svg += text_at(kLeft - 8.0, y.at(tick) + 4.0, y_text(tick, y_is_bytes), "end");
  }
  for (const double tick : x.ticks()) {
    svg += fmt::format("<path class=\"grid\" d=\"M{:.1f} {:.1f}V{:.1f}\"/>\n", x.at(tick), kTop,
                       bottom);
    svg += text_at(x.at(tick), bottom + 18.0, short_number(tick));
  }
  svg += fmt::format("<path class=\"axis\" d=\"M{:.1f} {:.1f}V{:.1f}H{:.1f}\"/>\n", kLeft, kTop,
                     bottom, right);
  svg += text_at((kLeft + right) / 2.0, bottom + 38.0, x_label);
  svg += upright_text(16.0, (kTop + bottom) / 2.0, y_label);
  return svg;
}

/// Names beside their marks below a chart, in as many lines as they take.
struct Legend {
  std::string svg;
  double height = 0.0;  // of the lines behind the first
};

/// `y` is the base of the first line, `right` where lines end.
Legend legend_of(const std::vector<std::string>& names, double y, double right) {
  constexpr double kLine = 18.0;
  constexpr double kWide = kCharacter + 1.0;  // in a short name wide letters do not even out
  Legend legend;
  double x = kLeft;
  for (std::size_t i = 0; i < names.size(); ++i) {
    const double width = 16.0 + kWide * static_cast<double>(names[i].size());
    if (x + width > right && x > kLeft) {
      x = kLeft;
      legend.height += kLine;
    }
    const double base = y + legend.height;
    legend.svg += fmt::format(
        "<rect class=\"fill c{}\" x=\"{:.1f}\" y=\"{:.1f}\" width=\"11\" height=\"11\"/>\n",
        i % kColours, x, base - 10.0);
    legend.svg += text_at(x + 16.0, base, names[i], "start");
    x += width + 18.0;
  }
  return legend;
}

/// Shapes tell the series apart where colours do not.
std::string marker(std::size_t series, double x, double y, const std::string& words) {
  const std::string open =
      fmt::format("class=\"fill c{}\"><title>{}</title></", series % kColours, escaped(words));
  switch (series % 4) {
    case 0:
      return fmt::format("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"4\" {}circle>\n", x, y, open);
    case 1:
      return fmt::format("<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"8\" height=\"8\" {}rect>\n",
                         x - 4.0, y - 4.0, open);
    case 2:
      return fmt::format("<path d=\"M{:.1f} {:.1f}l5 9h-10z\" {}path>\n", x, y - 5.0, open);
    default:
      return fmt::format("<path d=\"M{:.1f} {:.1f}l5 5l-5 5l-5 -5z\" {}path>\n", x, y - 5.0, open);
  }
}

/// Which of `count` labels to write so that at most `room` stand.
std::size_t label_step(std::size_t count, std::size_t room) {
  return std::max<std::size_t>(1, (count + room - 1) / room);
}

double longest(const std::vector<std::string>& names) {
  std::size_t most = 0;
  for (const std::string& name : names) most = std::max(most, name.size());
  return kCharacter * static_cast<double>(most);
}

}  // namespace

std::string escaped(std::string_view text) {
  std::string result;
  for (const char c : text) {
    switch (c) {
      case '&':
        result += "&amp;";
        break;
      case '<':
        result += "&lt;";
        break;
      case '>':
        result += "&gt;";
        break;
      case '"':
        result += "&quot;";
        break;
      default:
        result += c;
    }
  }
  return result;
}

Figure line_chart(const LineChart& chart, std::string caption) {
  double x_low = std::numeric_limits<double>::infinity(), x_high = -x_low;
  double y_low = chart.log_y ? x_low : 0.0, y_high = -x_low, lowest = x_low;
  std::string words;
  for (const Series& series : chart.series) {
    check(!series.points.empty(), "line_chart: the series '{}' has no points", series.name);
    for (const auto& [x, y] : series.points) {
      check(
          (x > 0.0 || !chart.log_x) && (y > 0.0 || !chart.log_y),
          "line_chart: '{}' has the point ({}, {}) on a logarithmic axis; points must be positive",
          series.name, x, y);
      x_low = std::min(x_low, x);
      x_high = std::max(x_high, x);
      y_low = std::min(y_low, y);
      lowest = std::min(lowest, y);
      y_high = std::max(y_high, y);
    }
    words += fmt::format("{}: {} at {} to {} at {}. ", series.name,
                         y_text(series.points.front().second, chart.y_is_bytes),
                         short_number(series.points.front().first),
                         y_text(series.points.back().second, chart.y_is_bytes),
                         short_number(series.points.back().first));
  }
  const Axis x(x_low, x_high, chart.log_x, kLeft, kWidth - kRight);
  if (!chart.y_from_zero && !chart.log_y && y_high > lowest) {
    const double margin = 0.08 * (y_high - lowest);
    y_low = lowest - margin;
    y_high += margin;
  }
  const Axis y(y_low, y_high, chart.log_y, kHeight - kBottom, kTop);
  std::vector<std::string> names;
  for (const Series& series : chart.series) names.push_back(series.name);
  const Legend legend = legend_of(names, kHeight - 8.0, kWidth - kRight);
  std::string svg = opened(kWidth, kHeight + legend.height, chart.title, words);
  svg += frame(x, y, chart.x_label, chart.y_label, chart.y_is_bytes);
  for (std::size_t i = 0; i < chart.series.size(); ++i) {
    const Series& series = chart.series[i];
    std::string path, markers;
    for (const auto& [px, py] : series.points) {
      path += fmt::format("{}{:.1f} {:.1f}", path.empty() ? 'M' : 'L', x.at(px), y.at(py));
      markers += marker(
          i, x.at(px), y.at(py),
          fmt::format("{}: {} at {}", series.name, y_text(py, chart.y_is_bytes), short_number(px)));
    }
    svg += fmt::format("<path class=\"line c{}\" d=\"{}\"/>\n{}", i % kColours, path, markers);
  }
  return {svg + legend.svg + "</svg>\n", std::move(caption)};
}

Figure heat_map(const HeatMap& map, std::string caption) {
  check(map.values.size() == map.rows.size() * map.columns.size() && !map.values.empty(),
        "heat_map: {} values for {} rows and {} columns", map.values.size(), map.rows.size(),
        map.columns.size());
  const double left = 36.0 + longest(map.rows), top = 44.0;
  const double width =
      std::max(kWidth, left + 24.0 + 6.0 * static_cast<double>(map.columns.size()));
  const double cell_width =
      std::min(44.0, (width - left - 24.0) / static_cast<double>(map.columns.size()));
  const double cell_height = std::clamp(300.0 / static_cast<double>(map.rows.size()), 7.0, 26.0);
  const double bottom = top + cell_height * static_cast<double>(map.rows.size());
  const bool turned = longest(map.columns) > cell_width;
  const double below = turned ? longest(map.columns) + 10.0 : 20.0;
  const double height = bottom + below + 50.0;

  const auto [smallest, largest] = std::ranges::minmax(map.values);
  std::string svg = opened(
      width, height, map.title,
      fmt::format("{} rows ({}), {} columns ({}); values from {:.3g} to {:.3g}.", map.rows.size(),
                  map.row_label, map.columns.size(), map.column_label, smallest, largest));
  for (std::size_t r = 0; r < map.rows.size(); ++r)
    for (std::size_t c = 0; c < map.columns.size(); ++c) {
      const double value = map.values[r * map.columns.size() + c];
      const double part = std::clamp((value - map.low) / (map.high - map.low), 0.0, 1.0);
      svg += fmt::format(
          "<rect class=\"cell\" x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.2f}\" height=\"{:.2f}\" "
          "fill-opacity=\"{:.3f}\"><title>{}, {}: {:.3g}</title></rect>\n",
          left + cell_width * static_cast<double>(c), top + cell_height * static_cast<double>(r),
          cell_width, cell_height, part, escaped(map.rows[r]), escaped(map.columns[c]), value);
    }
  const double right = left + cell_width * static_cast<double>(map.columns.size());
  svg += fmt::format("<path class=\"axis\" d=\"M{:.1f} {:.1f}H{:.1f}V{:.1f}H{:.1f}Z\"/>\n", left,
                     top, right, bottom, left);
  const std::size_t row_step =
      label_step(map.rows.size(), static_cast<std::size_t>((bottom - top) / 13.0));
  for (std::size_t r = 0; r < map.rows.size(); r += row_step)
    svg += text_at(left - 6.0, top + cell_height * (static_cast<double>(r) + 0.5) + 4.5,
                   map.rows[r], "end");
  const std::size_t column_step =
      turned ? label_step(map.columns.size(), static_cast<std::size_t>((right - left) / 14.0)) : 1;
  for (std::size_t c = 0; c < map.columns.size(); c += column_step) {
    const double x = left + cell_width * (static_cast<double>(c) + 0.5);
    if (turned) {
      svg += fmt::format(
          "<text transform=\"translate({:.1f},{:.1f}) rotate(-90)\" "
          "text-anchor=\"end\">{}</text>\n",
          x + 4.5, bottom + 6.0, escaped(map.columns[c]));
    } else {
      svg += text_at(x, bottom + 16.0, map.columns[c]);
    }
  }
  svg += text_at(left, bottom + below + 14.0, map.column_label, "start");
  svg += upright_text(14.0, (top + bottom) / 2.0, map.row_label);
  // The scale, from low to high.
  const double scale_y = bottom + below + 26.0;
  svg += text_at(left, scale_y + 11.0, short_number(map.low), "start");
  for (int i = 0; i <= 10; ++i)
    svg += fmt::format(
        "<rect class=\"cell\" x=\"{:.1f}\" y=\"{:.1f}\" width=\"14\" height=\"13\" "
        "fill-opacity=\"{:.1f}\"/>\n",
        left + 40.0 + 14.0 * i, scale_y, 0.1 * i);
  svg += text_at(left + 40.0 + 14.0 * 11 + 6.0, scale_y + 11.0, short_number(map.high), "start");
  return {svg + "</svg>\n", std::move(caption)};
}

Figure stacked_areas(const StackedAreas& areas, std::string caption) {
  const std::size_t count = areas.x.size();
  check(count > 1, "stacked_areas: {} points; two or more are needed", count);
  std::vector<double> sum(count, 0.0);
  for (const auto& [name, values] : areas.layers) {
    check(values.size() == count, "stacked_areas: '{}' has {} values for {} points", name,
          values.size(), count);
    for (std::size_t i = 0; i < count; ++i) sum[i] += values[i];
  }
  const double highest = *std::ranges::max_element(sum);
  const Axis x(areas.x.front(), areas.x.back(), false, kLeft, kWidth - kRight);
  const Axis y(0.0, highest, false, kHeight - kBottom, kTop);
  const auto peak = static_cast<std::size_t>(std::ranges::max_element(sum) - sum.begin());
  std::string words = fmt::format("The highest sum is {} at {}; there, ",
                                  y_text(highest, areas.y_is_bytes), short_number(areas.x[peak]));
  for (const auto& [name, values] : areas.layers)
    words += fmt::format("{} {}, ", name, y_text(values[peak], areas.y_is_bytes));
  words.replace(words.size() - 2, 2, ".");
  std::vector<std::string> names;
  for (const auto& layer : areas.layers) names.push_back(layer.first);
  const Legend legend = legend_of(names, kHeight - 8.0, kWidth - kRight);
  std::string svg = opened(kWidth, kHeight + legend.height, areas.title, words);
  std::vector<double> lower(count, 0.0);
  for (std::size_t layer = 0; layer < areas.layers.size(); ++layer) {
    const auto& values = areas.layers[layer].second;
    std::string path;
    // Steps: a value holds until the next point.
    for (std::size_t i = 0; i < count; ++i) {
      const double top = y.at(lower[i] + values[i]);
      path += i == 0 ? fmt::format("M{:.1f} {:.1f}", x.at(areas.x[0]), top)
                     : fmt::format("H{:.1f}V{:.1f}", x.at(areas.x[i]), top);
    }
    for (std::size_t i = count; i-- > 0;)
      path += i + 1 == count ? fmt::format("V{:.1f}", y.at(lower[i]))
                             : fmt::format("V{:.1f}H{:.1f}", y.at(lower[i]), x.at(areas.x[i]));
    svg += fmt::format("<path class=\"area fill c{}\" d=\"{}Z\"/>\n", layer % kColours, path);
    for (std::size_t i = 0; i < count; ++i) lower[i] += values[i];
  }
  svg += frame(x, y, areas.x_label, areas.y_label, areas.y_is_bytes);
  return {svg + legend.svg + "</svg>\n", std::move(caption)};
}

Figure lifetimes(const Lifetimes& chart, std::string caption) {
  std::vector<std::string> names;
  for (const Lifetime& bar : chart.bars) names.push_back(bar.name);
  const double left = 16.0 + longest(names), top = 36.0, row = 17.0;
  const double width = std::max(kWidth, left + 420.0);
  const double bottom = top + row * static_cast<double>(chart.bars.size());
  const double height = bottom + 70.0;
  const Axis x(chart.first, chart.last, false, left, width - kRight);
  const Legend legend = legend_of(chart.groups, height - 8.0, width - kRight);
  std::string svg =
      opened(width, height + legend.height, chart.title,
             fmt::format("{} bars from {} to {}; the table says the same in numbers.",
                         chart.bars.size(), short_number(chart.first), short_number(chart.last)));
  for (const double tick : x.ticks()) {
    svg += fmt::format("<path class=\"grid\" d=\"M{:.1f} {:.1f}V{:.1f}\"/>\n", x.at(tick), top,
                       bottom);
    svg += text_at(x.at(tick), bottom + 16.0, short_number(tick));
  }
  for (std::size_t i = 0; i < chart.bars.size(); ++i) {
    const Lifetime& bar = chart.bars[i];
    const double y = top + row * static_cast<double>(i);
    svg += text_at(left - 6.0, y + 12.5, bar.name, "end");
    svg += fmt::format(
        "<rect class=\"fill c{}\" x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" "
        "height=\"11\"><title>{}: "
        "{} to {}</title></rect>\n",
        bar.group % kColours, x.at(bar.begin), y + 3.0,
        std::max(1.5, x.at(bar.end) - x.at(bar.begin)), escaped(bar.name), short_number(bar.begin),
        short_number(bar.end));
  }
  svg += text_at((left + width - kRight) / 2.0, bottom + 36.0, chart.x_label);
  return {svg + legend.svg + "</svg>\n", std::move(caption)};
}

}  // namespace mf
