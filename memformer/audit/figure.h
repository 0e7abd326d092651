#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace mf {

/// A picture for a page: one SVG element that needs nothing else, with a title and words that say
/// what it shows, for those who do not see it. Colours are classes of the page that holds it, so
/// that it follows light and dark.
struct Figure {
  std::string svg;
  std::string caption;
};

/// Text as it must stand in HTML and SVG.
std::string escaped(std::string_view text);

/// One line of a chart, points in order of x.
struct Series {
  std::string name;
  std::vector<std::pair<double, double>> points;
};

/// Lines with markers over one x axis. On a logarithmic axis all values must be positive.
struct LineChart {
  std::string title, x_label, y_label;
  bool log_x = false, log_y = false;
  bool y_is_bytes = false;  ///< ticks such as "4 MB"
  std::vector<Series> series;
};
Figure line_chart(const LineChart& chart, std::string caption);

/// A matrix as a grid of cells, the darker the larger.
struct HeatMap {
  std::string title, row_label, column_label;
  std::vector<std::string> rows, columns;  ///< names; where there are many, some are left out
  std::vector<double> values;              ///< row-major
  double low = 0.0, high = 1.0;            ///< of the scale; values outside are cut to it
};
Figure heat_map(const HeatMap& map, std::string caption);

/// Quantities stacked on each other over one x axis: the sum is the upper edge.
struct StackedAreas {
  std::string title, x_label, y_label;
  bool y_is_bytes = false;
  std::vector<double> x;
  std::vector<std::pair<std::string, std::vector<double>>> layers;  ///< name, one value for each x
};
Figure stacked_areas(const StackedAreas& areas, std::string caption);

/// One bar for each thing that lived from `begin` to `end`.
struct Lifetime {
  std::string name;
  int group = 0;  ///< its colour, an index of `groups`
  double begin = 0.0, end = 0.0;
};
struct Lifetimes {
  std::string title, x_label;
  double first = 0.0, last = 1.0;  ///< of the x axis
  std::vector<std::string> groups;
  std::vector<Lifetime> bars;
};
Figure lifetimes(const Lifetimes& chart, std::string caption);

}  // namespace mf
