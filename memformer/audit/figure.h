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
  std::string svg;      ///< the element
  std::string caption;  ///< below the picture
};

/// Text as it must stand in HTML and SVG.
std::string escaped(std::string_view text);

/// One line of a chart, points in order of x.
struct Series {
  std::string name;                               ///< in the legend
  std::vector<std::pair<double, double>> points;  ///< (x, y)
};

/// Lines with markers over one x axis. On a logarithmic axis all values must be positive.
struct LineChart {
  std::string title;           ///< above the picture, and its name for screen readers
  std::string x_label;         ///< below the axis
  std::string y_label;         ///< beside the axis
  bool log_x = false;          ///< ticks at powers of two
  bool log_y = false;          ///< ticks at 1, 2 and 5 times powers of ten, or at the powers alone
  bool y_is_bytes = false;     ///< ticks such as "4 MB"
  std::vector<Series> series;  ///< each with at least one point
  bool y_from_zero = true;     ///< false: the axis is cut to the points; they are close together
};
/// Throws Error for a series without points and for what a logarithmic axis cannot show.
Figure line_chart(const LineChart& chart, std::string caption);

/// A matrix as a grid of cells, the darker the larger.
struct HeatMap {
  std::string title;                 ///< above the picture
  std::string row_label;             ///< what the rows are
  std::string column_label;          ///< what the columns are
  std::vector<std::string> rows;     ///< names; where there are many, some are left out
  std::vector<std::string> columns;  ///< the same
  std::vector<double> values;        ///< row-major
  double low = 0.0;                  ///< value without colour
  double high = 1.0;                 ///< value with all of it; others are cut to the scale
};
/// Throws Error unless there is a value for each cell.
Figure heat_map(const HeatMap& map, std::string caption);

/// Quantities stacked on each other over one x axis: the sum is the upper edge.
struct StackedAreas {
  std::string title;        ///< above the picture
  std::string x_label;      ///< below the axis
  std::string y_label;      ///< beside the axis
  bool y_is_bytes = false;  ///< ticks such as "4 MB"
  std::vector<double> x;    ///< growing; a value holds from its x to the next
  /// Names with one value for each x, the lowest layer first.
  std::vector<std::pair<std::string, std::vector<double>>> layers;
};
/// Throws Error for fewer than two points and for layers of another length.
Figure stacked_areas(const StackedAreas& areas, std::string caption);

/// One bar for each thing that lived from `begin` to `end`.
struct Lifetime {
  std::string name;    ///< beside the bar
  int group = 0;       ///< its colour, an index of `Lifetimes::groups`
  double begin = 0.0;  ///< on the x axis
  double end = 0.0;    ///< on the x axis
};
/// Bars below each other over one x axis.
struct Lifetimes {
  std::string title;                ///< above the picture
  std::string x_label;              ///< below the axis
  double first = 0.0;               ///< where the x axis begins
  double last = 1.0;                ///< where it ends
  std::vector<std::string> groups;  ///< names in the legend
  std::vector<Lifetime> bars;       ///< from top to bottom
};
/// The picture of them.
Figure lifetimes(const Lifetimes& chart, std::string caption);

}  // namespace mf
