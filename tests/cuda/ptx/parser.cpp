#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <set>

#include "decode.h"
#include "interpreter.h"
#include "lexer.h"
#include "unset.h"

/// Text of a PTX module to instructions ready to run.
namespace standin::ptx {

namespace {

const std::map<std::string_view, Special>& special_registers() {
  static const std::map<std::string_view, Special> kNames = {
      {"%tid.x", Special::tid_x},
      {"%tid.y", Special::tid_y},
      {"%tid.z", Special::tid_z},
      {"%ntid.x", Special::ntid_x},
      {"%ntid.y", Special::ntid_y},
      {"%ntid.z", Special::ntid_z},
      {"%ctaid.x", Special::ctaid_x},
      {"%ctaid.y", Special::ctaid_y},
      {"%ctaid.z", Special::ctaid_z},
      {"%nctaid.x", Special::nctaid_x},
      {"%nctaid.y", Special::nctaid_y},
      {"%nctaid.z", Special::nctaid_z},
      {"%laneid", Special::laneid},
      {"%warpid", Special::warpid},
      {"%nwarpid", Special::nwarpid},
      {"%lanemask_eq", Special::lanemask_eq},
      {"%lanemask_lt", Special::lanemask_lt},
      {"%lanemask_le", Special::lanemask_le},
      {"%lanemask_gt", Special::lanemask_gt},
      {"%lanemask_ge", Special::lanemask_ge},
      {"%dynamic_smem_size", Special::dynamic_shared_size},
      {"%clock", Special::clock},
      {"%clock64", Special::clock}};
  return kNames;
}

bool is_number(std::string_view word) {
  return !word.empty() && std::isdigit(static_cast<unsigned char>(word[0])) != 0;
}

/// Integers, and floating-point numbers by their bits: 0f3F800000, 0d3FF0000000000000.
std::uint64_t number(std::string_view word) {
  const std::string text(word);
  const bool bits = text.size() > 2 && text[0] == '0' && std::strchr("fFdD", text[1]) != nullptr;
  return bits ? std::strtoull(text.c_str() + 2, nullptr, 16)
              : std::strtoull(text.c_str(), nullptr, 0);
}

std::size_t aligned(std::size_t offset, std::size_t alignment) {
  return (offset + alignment - 1) / alignment * alignment;
}

/// What a name stands for inside a function.
struct Name {
  enum class Kind { reg, range, symbol, frame } kind = Kind::reg;
  Slot slot = 0;                   ///< reg
  std::uint64_t value = 0;         ///< symbol: address or offset; range: number of registers
  std::optional<Special> special;  ///< symbol: added to `value` when the function starts
  std::size_t size = 0;
};

struct Operand {
  std::vector<Slot> slots;  ///< several for a vector
  bool vector = false, address = false, negated = false;
  Slot second = 0;          ///< of a pair a|b
  std::int64_t offset = 0;  ///< of an address
  bool frame = false;
  std::string_view name;  ///< label, table or function
};

class Parser {
 public:
  explicit Parser(const std::string& text) : tokens_(tokenize(text)) {}

  std::unique_ptr<Module> run() {
    // File names stand at the end of the text.
    for (; !at_end(); ++position_) {
      if (peek() != ".file") continue;
      const std::string_view path = peek(2);
      files_[number(peek(1))] = path.substr(1, path.size() - 2);
    }
    position_ = 0;
    while (!at_end()) parse_statement();
    return std::move(module_);
  }

 private:
  // ---- Tokens ----

  bool at_end() const { return peek().empty(); }
  std::string_view peek(std::size_t ahead = 0) const {
    return tokens_[std::min(position_ + ahead, tokens_.size() - 1)].text;
  }
  std::string_view next() {
    if (at_end()) fail("the text ends too early");
    return tokens_[position_++].text;
  }
  bool accept(std::string_view text) {
    if (peek() != text) return false;
    ++position_;
    return true;
  }
  void expect(std::string_view text) {
    if (!accept(text))
      fail("expected '" + std::string(text) + "', got '" + std::string(peek()) + "'");
  }
  void skip_line() {
    const int line = tokens_[position_].line;
    while (!at_end() && tokens_[position_].line == line) ++position_;
  }
  void skip_past(std::string_view text) {
    while (next() != text) {
    }
  }
  void skip_braces() {
    expect("{");
    for (int depth = 1; depth > 0;) {
      const auto t = next();
      depth += (t == "{") - (t == "}");
    }
  }
  [[noreturn]] void fail(const std::string& what) const {
    const int line = tokens_[position_].line;
    std::string where = "PTX line " + std::to_string(line);
    if (!source_file_.empty()) where += ", " + source_file_ + ":" + std::to_string(source_line_);
    throw ParseError(where + ": " + what);
  }

  // ---- Module scope ----

  void parse_statement() {
    const std::string_view word = peek();
    if (word == ".version" || word == ".address_size" || word == ".file") {
      skip_line();
    } else if (word == ".target") {
      const std::string_view target = peek(1);
      module_->target = std::atoi(std::string(target.substr(target.find('_') + 1)).c_str());
      skip_line();
    } else if (word == ".section") {
      while (peek() != "{") next();
      skip_braces();
    } else if (word == ".pragma" || word == ".alias") {
      skip_past(";");
    } else if (word == ".visible" || word == ".weak" || word == ".common") {
      next();
    } else if (word == ".extern") {
      next();
      extern_ = true;
      return;
    } else if (word == ".entry" || word == ".func") {
      parse_function(next() == ".entry");
    } else if (word == ".global" || word == ".const") {
      parse_global(next() == ".const");
    } else if (word == ".shared") {
      next();
      parse_shared(module_scope_, module_shared_);
    } else {
      fail("unknown directive '" + std::string(word) + "'");
    }
    extern_ = false;
  }

  struct Declaration {
    std::string name;
    std::size_t element = 0, size = 0, alignment = 0;
    bool open = false;  ///< [] without a length
  };

  /// `.align 4 .b8 name[16]`, after the state space.
  Declaration parse_declaration() {
    Declaration d;
    while (peek().starts_with('.')) {
      const std::string_view word = next();
      if (word == ".align") {
        d.alignment = number(next());
      } else if (word == ".attribute") {
        skip_past(")");
      } else if (word == ".ptr") {
        if (peek() == ".global" || peek() == ".shared" || peek() == ".const") next();
      } else if (const Type type = type_named(word.substr(1)); type != Type::none) {
        d.element = size_of(type);
      } else {
        fail("unknown word '" + std::string(word) + "' in a declaration");
      }
    }
    d.name = next();
    d.size = d.element;
    while (accept("[")) {
      if (accept("]")) {
        d.open = true;
        continue;
      }
      d.size *= number(next());
      expect("]");
    }
    if (d.alignment == 0) d.alignment = d.element;
    return d;
  }

  void parse_global(bool constant) {
    const Declaration d = parse_declaration();
    if (extern_) fail("variable " + d.name + " of another module");
    std::vector<std::uint64_t> values;
    if (accept("=")) {
      const bool list = accept("{");
      do {
        const bool negative = accept("-");
        if (!is_number(peek())) fail("initial value '" + std::string(peek()) + "'");
        const std::uint64_t value = number(next());
        values.push_back(negative ? 0 - value : value);
      } while (list && accept(","));
      if (list) expect("}");
    }
    expect(";");
    DeviceMemory& memory = device_memory();
    const std::uint64_t address = memory.allocate(d.size, true);
    if (address == 0) fail("no memory for " + d.name);
    std::memset(memory.view(address), 0, d.size);  // as C++ initialises statics
    memory.set_written(address, d.size);
    for (std::size_t n = 0; n < values.size(); ++n) {
      std::memcpy(memory.view(address) + n * d.element, &values[n], d.element);
    }
    module_->variables[d.name] = {d.name, constant, d.size, address};
    module_scope_[d.name] = symbol(address, d.size);
  }

  static Name symbol(std::uint64_t value, std::size_t size,
                     std::optional<Special> special = std::nullopt) {
    return {Name::Kind::symbol, 0, value, special, size};
  }

  void parse_shared(std::map<std::string, Name>& scope, std::size_t& used) {
    const Declaration d = parse_declaration();
    expect(";");
    if (d.open) {
      scope[d.name] = symbol(0, 0, Special::dynamic_shared);
      return;
    }
    used = aligned(used, d.alignment);
    scope[d.name] = symbol(used, d.size);
    used += d.size;
  }

  // ---- Functions ----

  std::vector<Parameter> parse_parameters(std::size_t& bytes) {
    std::vector<Parameter> parameters;
    if (!accept("(")) return parameters;
    while (!accept(")")) {
      if (!accept(".param")) fail("parameters in registers");
      const Declaration d = parse_declaration();
      bytes = aligned(bytes, d.alignment);
      parameters.push_back({d.name, bytes, d.size});
      bytes += d.size;
      accept(",");
    }
    return parameters;
  }

  void parse_function(bool entry) {
    std::size_t frame = 0, bytes = 0;
    auto results = parse_parameters(frame);
    const std::string name(next());
    auto parameters = parse_parameters(entry ? bytes : frame);
    auto& owned = module_->functions[name];
    if (owned == nullptr) owned = std::make_unique<Function>();
    function_ = owned.get();
    if (function_->defined) fail("function " + name + " is defined twice");
    *function_ = Function{};
    function_->name = name;
    function_->entry = entry;
    function_->parameters = std::move(parameters);
    function_->results = std::move(results);
    function_->parameter_bytes = bytes;
    function_->frame_bytes = frame;
    while (peek().starts_with('.')) {
      const auto word = next();
      std::size_t threads = 1;
      while (is_number(peek())) {
        threads *= number(next());
        accept(",");
      }
      if (word == ".maxntid" || word == ".reqntid")
        function_->max_threads = static_cast<int>(threads);
    }
    if (accept(";")) return;
    function_->defined = true;
    const std::size_t body = position_;
    begin_body();
    try {
      parse_block();
      finish_body();
    } catch (const ParseError& e) {
      function_->error = e.what();
      module_->code.resize(function_->first);
      module_->origins.resize(function_->first);
      position_ = body;
      skip_braces();
    }
  }

  void begin_body() {
    scopes_ = {{}, {}};
    constants_.clear();
    labels_.clear();
    tables_.clear();
    pending_.clear();
    source_file_.clear();
    function_->first = module_->code.size();
    function_->shared_bytes = module_shared_;
    function_->slots = 1;
    for (const auto& p : function_->parameters) {
      scopes_[0][p.name] = function_->entry ? symbol(p.offset, p.size) : frame_name(p);
    }
    for (const auto& p : function_->results) scopes_[0][p.name] = frame_name(p);
  }

  static Name frame_name(const Parameter& p) {
    return {Name::Kind::frame, 0, p.offset, std::nullopt, p.size};
  }

  void parse_block() {
    expect("{");
    scopes_.emplace_back();
    while (!accept("}")) {
      const std::string_view word = peek();
      if (word == "{") {
        parse_block();
      } else if (word == ".reg") {
        next();
        parse_registers();
      } else if (word == ".local") {
        next();
        const Declaration d = parse_declaration();
        expect(";");
        function_->local_bytes =
            aligned(function_->local_bytes, std::max<std::size_t>(d.alignment, 8));
        scopes_.back()[d.name] = symbol(function_->local_bytes, d.size, Special::local);
        function_->local_bytes += d.size;
      } else if (word == ".shared") {
        next();
        if (!function_->entry) fail("shared variable in a function that is no kernel");
        parse_shared(scopes_.back(), function_->shared_bytes);
      } else if (word == ".param") {
        next();
        const Declaration d = parse_declaration();
        expect(";");
        const std::size_t at =
            aligned(function_->frame_bytes, std::max<std::size_t>(d.alignment, 8));
        scopes_.back()[d.name] = frame_name({d.name, at, d.size});
        function_->frame_bytes = at + d.size;
      } else if (word == ".loc") {
        source_file_ = files_[number(peek(1))];
        source_line_ = static_cast<int>(number(peek(2)));
        skip_line();
      } else if (word == ".pragma") {
        skip_past(";");
      } else if (peek(1) == ":" && !word.starts_with('.')) {
        parse_label();
      } else {
        parse_instruction();
      }
    }
    scopes_.pop_back();
  }

  void parse_registers() {
    while (peek().starts_with('.')) next();
    do {
      const std::string name(next());
      if (accept("<")) {
        scopes_.back()[name] = {Name::Kind::range, 0, number(next()), std::nullopt, 0};
        expect(">");
      } else {
        scopes_.back()[name] = {Name::Kind::reg, new_slot(), 0, std::nullopt, 0};
      }
    } while (accept(","));
    expect(";");
  }

  void parse_label() {
    const std::string name(next());
    expect(":");
    if (accept(".branchtargets")) {
      auto& table = tables_[name];
      do table.emplace_back(next());
      while (accept(","));
      expect(";");
    } else if (peek() == ".callprototype" || peek() == ".calltargets") {
      fail("indirect call");
    } else {
      labels_[name] = module_->code.size() - function_->first;
    }
  }

  Slot new_slot() {
    if (function_->slots > 0xffff) fail("too many registers");
    return static_cast<Slot>(function_->slots++);
  }

  Slot preset(std::optional<Special> special, std::uint64_t value) {
    const auto key = std::make_pair(special ? static_cast<int>(*special) : -1, value);
    auto [found, inserted] = constants_.try_emplace(key, Slot{0});
    if (inserted) {
      found->second = new_slot();
      function_->presets.push_back(
          {found->second, special.has_value(), special.value_or(Special::tid_x), value});
    }
    return found->second;
  }

  const Name* find_name(std::string_view word) {
    const std::string name(word);
    for (auto scope = scopes_.rbegin(); scope != scopes_.rend(); ++scope) {
      if (const auto found = scope->find(name); found != scope->end()) return &found->second;
      // A register of a range gets its cell when it is first seen.
      const std::size_t digits = name.find_last_not_of("0123456789") + 1;
      if (digits == name.size()) continue;
      const auto range = scope->find(name.substr(0, digits));
      if (range == scope->end() || range->second.kind != Name::Kind::range) continue;
      if (number(name.substr(digits)) >= range->second.value) continue;
      return &((*scope)[name] = Name{Name::Kind::reg, new_slot(), 0, std::nullopt, 0});
    }
    const auto found = module_scope_.find(name);
    return found == module_scope_.end() ? nullptr : &found->second;
  }

  // ---- Instructions ----

  /// A register, constant, special register or symbol as a cell.
  Slot parse_value() {
    if (accept("-")) return preset(std::nullopt, 0 - number(next()));
    const std::string_view word = next();
    if (word == "_") return 0;
    if (is_number(word)) return preset(std::nullopt, number(word));
    if (word == "WARP_SZ") return preset(std::nullopt, 32);
    const auto& specials = special_registers();
    if (const auto s = specials.find(word); s != specials.end()) return preset(s->second, 0);
    const Name* name = find_name(word);
    if (name == nullptr) fail("'" + std::string(word) + "' is not declared");
    if (name->kind == Name::Kind::reg) return name->slot;
    if (name->kind != Name::Kind::symbol) fail("'" + std::string(word) + "' is no value");
    std::uint64_t value = name->value;
    if (accept("+")) value += number(next());
    return preset(name->special, value);
  }

  Operand parse_address() {
    Operand o;
    o.address = true;
    const Name* name = is_number(peek()) ? nullptr : find_name(peek());
    if (name != nullptr && name->kind == Name::Kind::frame) {
      next();
      o.frame = true;
      o.offset = static_cast<std::int64_t>(name->value);
      o.slots = {0};
    } else {
      o.slots = {parse_value()};
    }
    while (peek() == "+" || peek() == "-") {
      bool negative = next() == "-";
      if (accept("-")) negative = !negative;
      const auto distance = static_cast<std::int64_t>(number(next()));
      o.offset += negative ? -distance : distance;
    }
    expect("]");
    return o;
  }

  Operand parse_operand() {
    Operand o;
    if (accept("[")) return parse_address();
    if (accept("{")) {
      o.vector = true;
      do o.slots.push_back(parse_value());
      while (accept(","));
      expect("}");
      return o;
    }
    o.negated = accept("!");
    const std::string word(peek());
    if (labels_or_tables(word)) {
      o.name = next();
      return o;
    }
    o.slots = {parse_value()};
    if (accept("|")) o.second = parse_value();
    return o;
  }

  static bool labels_or_tables(std::string_view word) { return word.starts_with("$L"); }

  void parse_instruction() {
    const std::size_t start = position_;
    Instruction i;
    if (accept("@")) {
      i.guard = accept("!") ? Guard::if_false : Guard::if_true;
      i.predicate = parse_value();
    }
    const std::string opcode_text(next());
    Opcode opcode(opcode_text);
    if (opcode.name() == "call") {
      opcode.take("uni");
      parse_call(i);
    } else {
      std::vector<Operand> operands;
      if (peek() != ";") {
        do operands.push_back(parse_operand());
        while (accept(","));
      }
      place(opcode, operands, i);
    }
    if (peek() != ";") fail("unexpected '" + std::string(peek()) + "'");
    const bool known = decode(opcode, i);
    if (!known) fail("unknown instruction `" + text_since(start) + "`");
    expect(";");
    module_->code.push_back(i);
    module_->origins.push_back(
        {text_since(start), tokens_[start].line, source_file_, source_line_});
  }

  std::string text_since(std::size_t start) const {
    std::string text;
    for (std::size_t t = start; t < position_ && tokens_[t].text != ";"; ++t) {
      const auto word = tokens_[t].text;
      const bool tight = text.empty() || word == "," || word == "]" || word == "}" || word == ">" ||
                         word == "+" || text.ends_with('[') || text.ends_with('{') ||
                         text.ends_with('@') || text.ends_with('!') || text.ends_with('-') ||
                         text.ends_with('+') || word == "|" || text.ends_with('|');
      if (!tight) text += ' ';
      text += word;
    }
    return text;
  }

  static bool decode(Opcode& opcode, Instruction& i) {
    for (const DecoderTable* table :
         {&arithmetic_decoders(), &memory_decoders(), &control_decoders()}) {
      if (const auto found = table->find(opcode.name()); found != table->end()) {
        return found->second(opcode, i) && opcode.all_taken();
      }
    }
    return false;
  }

  /// Distributes operands over the fields of an instruction: the first is the result, except where
  /// there is none.
  void place(const Opcode& opcode, const std::vector<Operand>& operands, Instruction& i) {
    static const std::set<std::string_view> kWithoutResult = {
        "st",   "red",    "bra",   "brx",       "ret",      "exit",
        "trap", "membar", "fence", "nanosleep", "prefetch", "brkpt"};
    const bool barrier = opcode.name() == "bar" || opcode.name() == "barrier";
    const bool reduction = barrier && opcode_reduces(opcode);
    bool result = barrier ? reduction : !kWithoutResult.contains(opcode.name());
    std::size_t source = 0;
    const auto add_source = [&](Slot slot) {
      if (source >= std::size(i.src)) fail("too many operands");
      i.src[source++] = slot;
    };
    for (const Operand& o : operands) {
      if (o.vector) {
        if (o.slots.size() > std::size(i.dst)) fail("vector of more than 4");
        i.count = static_cast<std::uint8_t>(o.slots.size());
      }
      if (!o.name.empty()) {
        pending_.push_back({module_->code.size() - function_->first, std::string(o.name)});
      } else if (o.address) {
        i.base = o.slots[0];
        i.offset = o.offset;
        if (o.frame) i.space = Space::frame;
      } else if (result) {
        std::copy(o.slots.begin(), o.slots.end(), i.dst);
        if (!o.vector) i.dst[1] = o.second;
      } else {
        for (const Slot s : o.slots) add_source(s);
        if (o.vector) i.option = 1;
        if (o.negated) i.option = 1;
      }
      result = false;
    }
  }

  static bool opcode_reduces(Opcode opcode) { return opcode.take("red"); }

  /// call (result), function, (arguments);
  void parse_call(Instruction& i) {
    CallSite site;
    const auto list = [&] {
      std::vector<Name> names;
      if (!accept("(")) return names;
      while (!accept(")")) {
        const Name* name = find_name(next());
        if (name == nullptr || name->kind != Name::Kind::frame) fail("argument in a register");
        names.push_back(*name);
        accept(",");
      }
      return names;
    };
    const auto results = list();
    accept(",");
    const std::string callee(next());
    const auto found = module_->functions.find(callee);
    if (found == module_->functions.end()) fail("call of '" + callee + "', which is not declared");
    site.function = found->second.get();
    accept(",");
    const auto arguments = list();
    const auto copies = [&](const std::vector<Name>& given, const std::vector<Parameter>& formal) {
      if (given.size() != formal.size()) fail("wrong number of arguments for " + callee);
      std::vector<Copy> result;
      for (std::size_t n = 0; n < given.size(); ++n) {
        result.push_back({given[n].value, formal[n].offset, formal[n].size});
      }
      return result;
    };
    site.arguments = copies(arguments, site.function->parameters);
    site.results = copies(results, site.function->results);
    i.offset = static_cast<std::int64_t>(module_->calls.size());
    module_->calls.push_back(std::move(site));
  }

  void finish_body() {
    // Code that runs off its end returns.
    Instruction last;
    Opcode ret("ret");
    decode(ret, last);
    module_->code.push_back(last);
    module_->origins.push_back({"ret", tokens_[position_].line, source_file_, source_line_});

    const auto label = [&](const std::string& name) {
      const auto found = labels_.find(name);
      if (found == labels_.end()) fail("label " + name + " is not defined");
      return found->second;
    };
    Flow flow(module_->code.size() - function_->first);
    for (const auto& [index, name] : pending_) {
      if (const auto table = tables_.find(name); table != tables_.end()) {
        for (const auto& target : table->second) flow.targets[index].push_back(label(target));
      } else {
        flow.targets[index].push_back(label(name));
      }
    }
    const Moved moved = add_unset_checks(*module_, *function_, flow);
    for (const auto& [index, name] : pending_) {
      const std::size_t here = moved.self[index];
      Instruction& i = module_->code[function_->first + here];
      std::vector<std::int32_t> jumps;
      for (const std::size_t t : flow.targets[index]) {
        jumps.push_back(static_cast<std::int32_t>(moved.first[t]) -
                        static_cast<std::int32_t>(here));
      }
      if (tables_.contains(name)) {
        i.offset = static_cast<std::int64_t>(module_->jump_tables.size());
        module_->jump_tables.push_back(std::move(jumps));
      } else {
        i.jump = jumps[0];
      }
    }
    function_->last = module_->code.size();
    function_->registers = static_cast<int>(function_->slots - function_->presets.size() - 1);
  }

  struct PendingJump {
    std::size_t index;
    std::string name;
  };

  std::vector<Token> tokens_;
  std::size_t position_ = 0;
  std::unique_ptr<Module> module_ = std::make_unique<Module>();
  std::map<std::uint64_t, std::string> files_;
  std::map<std::string, Name> module_scope_;
  std::size_t module_shared_ = 0;
  bool extern_ = false;

  // Of the function at hand.
  Function* function_ = nullptr;
  std::vector<std::map<std::string, Name>> scopes_;
  std::map<std::pair<int, std::uint64_t>, Slot> constants_;
  std::map<std::string, std::size_t> labels_;
  std::map<std::string, std::vector<std::string>> tables_;
  std::vector<PendingJump> pending_;
  std::string source_file_;
  int source_line_ = 0;
};

}  // namespace

std::unique_ptr<Module> parse(const std::string& text) { return Parser(text).run(); }

}  // namespace standin::ptx
