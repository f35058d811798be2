#include "report/schemas.h"

#include <algorithm>
#include <memory>
#include <ranges>
#include <string_view>
#include <utility>

#include <fmt/format.h>
#include <valijson/adapters/nlohmann_json_adapter.hpp>
#include <valijson/schema.hpp>
#include <valijson/schema_parser.hpp>
#include <valijson/validator.hpp>

#include "schemas_json.h"  // kSchemaFiles: names and texts
#include "session/text.h"
#include "sinkscope/error.h"

namespace sinkscope::report {
namespace {

using Adapter = valijson::adapters::NlohmannJsonAdapter;

std::unique_ptr<nlohmann::json> schema_file(std::string_view name) {
  const auto* found = std::ranges::find(kSchemaFiles, name, &std::pair<std::string_view, std::string_view>::first);
  if (found == std::end(kSchemaFiles)) throw InternalError(fmt::format("there is no schema {}", name));
  return std::make_unique<nlohmann::json>(nlohmann::json::parse(found->second));
}

// "<root>[layers][0]" as the parts of a JSON pointer: /layers/0
std::string pointer(const std::vector<std::string>& context) {
  std::string at;
  for (const std::string& part : context | std::views::drop(1)) at += "/" + part.substr(1, part.size() - 2);
  return at.empty() ? "its top" : at;
}

}  // namespace

void check_schema(const nlohmann::json& document, const std::string& schema, const std::string& file) {
  const size_t begin = schema.find('.') + 1;
  const auto root = schema_file(schema.substr(begin, schema.find('/') - begin) + ".schema.json");
  valijson::Schema parsed;
  valijson::SchemaParser(valijson::SchemaParser::kDraft7).populateSchema(
      Adapter(*root), parsed, [](const std::string& uri) -> const nlohmann::json* { return schema_file(uri).release(); }, [](const nlohmann::json* json) { delete json; });
  valijson::Validator validator(valijson::Validator::kStrongTypes);
  valijson::ValidationResults results;
  if (validator.validate(parsed, Adapter(document), &results)) return;
  // Places above one that is wrong are told to be wrong too.
  const auto& deepest = *std::ranges::max_element(results, {}, [](const auto& error) { return error.context.size(); });
  throw InputError(fmt::format("{} is no whole '{}': at {}: {} give a file as sinkscope wrote it", session::named(file), schema, pointer(deepest.context), deepest.description));
}

}  // namespace sinkscope::report
