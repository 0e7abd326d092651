#pragma once

#include <cstddef>
#include <string>
#include <variant>
#include <vector>

#include "memformer/audit/figure.h"

namespace mf {

/// A table of texts. Numbers stand to the right.
struct Table {
  /// Its head, and where its cells stand.
  struct Column {
    std::string name;   ///< the head
    bool right = true;  ///< false: to the left, and long cells may take several lines
  };
  std::vector<Column> columns;                 ///< from left to right
  std::vector<std::vector<std::string>> rows;  ///< a cell for each column
};

/// A row that stands for the rows below it, or a row of its own.
struct TreeRow {
  std::vector<std::string> cells;  ///< one for each column of the table
  std::vector<TreeRow> parts;      ///< empty: a row of its own
};
/// A table whose rows can be folded into the row above them.
struct TreeTable {
  std::vector<Table::Column> columns;  ///< the first one names the row
  std::vector<TreeRow> rows;           ///< of the first level, from top to bottom
  /// Levels that a terminal shows, and that a page opens at first; 1: no row's parts.
  int depth = 1;
};

/// One step of something that is stepped through: where it stands in a listing, and what is so
/// then.
struct Step {
  std::string title;               ///< of the step
  std::string text;                ///< what happens
  std::vector<std::size_t> lines;  ///< of the listing, those that run; counted from 0
  Table table;                     ///< what is so then
};

/// What an audit found, said once: `text` for a terminal, `html` as a page of its own that needs no
/// network, follows light and dark, and can be printed.
class Report {
 public:
  /// `claim`: the sentence that the audit holds against the facts.
  Report(std::string title, std::string claim);

  /// Of what follows.
  void heading(std::string text);
  /// Prose.
  void paragraph(std::string text);
  /// Lines as they are, in a fixed-width font.
  void listing(std::string text);
  /// The caption stands above it.
  void table(Table table, std::string caption = "");
  /// On the page only, folded up behind its summary until it is asked for; printed, it is open.
  void folded_table(std::string summary, Table table);
  /// A terminal shows the rows down to the tree's depth; a page has all, folded.
  void tree(TreeTable tree, std::string caption = "");
  /// On the page only.
  void figure(Figure figure);
  /// On the page only: the listing beside one step at a time, with buttons and arrow keys. Printed,
  /// or without scripts, all steps stand below each other.
  void steps(std::string title, std::vector<std::string> listing, std::vector<Step> steps);
  /// Once, at the end: whether the claim holds.
  void verdict(bool holds, std::string text);

  /// What the verdict says.
  bool holds() const { return holds_; }
  /// For a terminal; headings with nothing but pictures below them are left out.
  std::string text() const;
  /// A page of its own.
  std::string html() const;

 private:
  struct Heading {
    std::string text;
  };
  struct Paragraph {
    std::string text;
  };
  struct Listing {
    std::string text;
  };
  struct CaptionedTable {
    Table table;
    std::string caption;
  };
  struct FoldedTable {
    std::string summary;
    Table table;
  };
  struct StepThrough {
    std::string title;
    std::vector<std::string> listing;
    std::vector<Step> steps;
  };
  struct CaptionedTree {
    TreeTable tree;
    std::string caption;
  };
  using Block = std::variant<Heading, Paragraph, Listing, CaptionedTable, CaptionedTree,
                             FoldedTable, Figure, StepThrough>;

  std::string title_, claim_, verdict_;
  bool holds_ = false;
  std::vector<Block> blocks_;
};

/// The table with aligned columns, two spaces between them.
std::string text_of(const Table& table);
/// The rows of a tree down to its depth as a table, indented by two spaces a level.
Table unfolded(const TreeTable& tree);
/// A table as HTML.
std::string html_of(const Table& table, const std::string& caption = "");

/// A picture as a file of its own, which follows light and dark wherever it is shown.
std::string svg_file_of(const Figure& figure);

/// "1.5 MB", "532 B".
std::string readable_bytes(std::int64_t bytes);

}  // namespace mf
