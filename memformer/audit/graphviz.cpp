#include "memformer/audit/graphviz.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <vector>

#include "memformer/audit/temporary_folder.h"

extern char** environ;

namespace mf {
namespace {

std::string content_of(const std::string& path) {
  std::ifstream file(path);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

/// Runs a program without a shell; its messages go to `messages`. Returns its exit code, -1 if it
/// was not started or did not end by itself.
int run(const std::vector<std::string>& command, const std::string& messages) {
  std::vector<char*> arguments;
  for (const std::string& word : command) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, messages.c_str(),
                                   O_WRONLY | O_CREAT | O_TRUNC, 0600);
  pid_t process = 0;
  const int started =
      posix_spawn(&process, arguments[0], &actions, nullptr, arguments.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  int status = 0;
  if (started != 0 || waitpid(process, &status, 0) != process || !WIFEXITED(status)) return -1;
  return WEXITSTATUS(status);
}

}  // namespace

std::string program_on_path(const std::string& name) {
  const char* const path = std::getenv("PATH");
  std::istringstream folders(path == nullptr ? "" : path);
  for (std::string folder; std::getline(folders, folder, ':');) {
    const std::string candidate = folder + "/" + name;
    if (!folder.empty() && access(candidate.c_str(), X_OK) == 0) return candidate;
  }
  return "";
}

Figure graphviz(const std::string& dot, const std::string& text, const std::string& title,
                std::string caption) {
  const detail::TemporaryFolder folder;
  std::ofstream(folder.at("graph.dot")) << text;
  const int code = run({dot, "-Tsvg", "-o", folder.at("graph.svg"), folder.at("graph.dot")},
                       folder.at("messages"));
  std::string said = content_of(folder.at("messages"));
  said.resize(std::min<std::size_t>(said.find_last_not_of(" \n") + 1, 200));
  const std::string document = content_of(folder.at("graph.svg"));
  const std::size_t begin = document.find("<svg"), end = document.rfind("</svg>");
  check(code == 0 && begin != document.npos && end != document.npos,
        "graphviz: {} drew nothing, exit code {}{}{}; is Graphviz whole?", dot, code,
        said.empty() ? "" : ": ", said);
  std::string svg = document.substr(begin, end + 6 - begin);
  // The drawing keeps its size on the page, and scrolls.
  std::string size;
  for (const std::string side : {"width", "height"}) {
    const std::size_t at = svg.find(side + "=\"");
    if (at > svg.find('>')) continue;
    const std::size_t value = at + side.size() + 2;
    size += side + ":" + svg.substr(value, svg.find('"', value) - value) + ";";
  }
  svg.replace(0, 4, fmt::format("<svg role=\"img\" style=\"{}min-width:0;max-width:none\"", size));
  svg.insert(svg.find('>') + 1,
             fmt::format("<title>{}</title><desc>{}</desc>", escaped(title), escaped(caption)));
  return {std::move(svg), std::move(caption)};
}

}  // namespace mf
