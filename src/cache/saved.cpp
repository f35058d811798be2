#include "cache/saved.h"

#include <algorithm>
#include <cstring>
#include <new>

#include <nlohmann/json.hpp>

#include "sinkscope/error.h"

namespace sinkscope::cache {
namespace {

using nlohmann::json;

constexpr const char* kSchema = "sinkscope.memory/3";

template <class T>
json binary(const std::vector<T>& values) {
  const auto* from = reinterpret_cast<const uint8_t*>(values.data());
  return json::binary({from, from + values.size() * sizeof(T)});
}

template <class T>
std::vector<T> values_of(const json& bytes) {
  const auto& from = bytes.get_binary();
  if (from.size() % sizeof(T) != 0) throw InputError("");
  std::vector<T> values(from.size() / sizeof(T));
  if (!from.empty()) std::memcpy(values.data(), from.data(), from.size());
  return values;
}

json head_json(const Head& head) {
  json blocks = json::array(), seen = json::array();
  for (const Head::Part& part : head.parts()) {
    std::vector<int32_t> positions(part.n_used);
    for (int i = 0; i < part.n_used; ++i) positions[i] = part.block->position(i);
    const std::span<const std::byte> data = part.block->data();
    blocks.push_back({{"settled", part.block->settled()}, {"capacity", part.block->capacity()}, {"live", part.live},
                      {"positions", binary(positions)}, {"data", binary(std::vector(data.begin(), data.end()))}});
  }
  for (const Observation& o : head.observations()) seen.push_back({{"n_query", o.n_query}, {"mass", binary(o.mass)}});
  return {{"blocks", blocks}, {"observations", seen}, {"notes", binary(head.notes())}};
}

void read_head(const json& from, const Storage& storage, Head& head) {
  for (const json& b : from.at("blocks")) {
    const auto positions = values_of<int32_t>(b.at("positions"));
    const int capacity = b.at("capacity"), n_used = static_cast<int>(positions.size());
    const unsigned live = b.at("live");
    if (capacity < 1 || capacity > kBlockRows || n_used < 1 || n_used > capacity || live >> n_used) throw InputError("");
    BlockPtr block(storage, b.at("settled"), capacity);
    for (int i = 0; i < n_used; ++i) {
      if (i > 0 && (positions[i] <= positions[i - 1] || !block->reaches(positions[i]))) throw InputError("");
      block->set_position(i, positions[i]);
    }
    const auto data = values_of<std::byte>(b.at("data"));
    if (data.size() != block->data().size()) throw InputError("");
    std::ranges::copy(data, block->data().begin());
    head.restore({block, static_cast<uint16_t>(live), static_cast<uint8_t>(n_used)});
  }
  for (const json& o : from.at("observations")) {
    Observation& seen = head.observations().emplace_back(Observation{o.at("n_query"), values_of<float>(o.at("mass"))});
    if (seen.mass.size() > static_cast<size_t>(head.n_row())) throw InputError("");
  }
  head.notes() = values_of<float>(from.at("notes"));
  if (head.notes().size() > static_cast<size_t>(head.n_row())) throw InputError("");
}

}  // namespace

std::vector<uint8_t> to_bytes(const Memory& memory) {
  json layers = json::array(), epochs = json::array();
  for (const Layer& layer : memory.layers()) {
    json heads = json::array();
    for (const Head& head : layer.heads) heads.push_back(head_json(head));
    const int d_key = layer.storage ? layer.storage->d_key : 0, d_value = layer.storage ? layer.storage->d_value : 0;
    json queries;
    if (const auto& q = layer.queries)
      queries = {{"n_head", q->n_head()}, {"scale", q->scale()}, {"first", q->rotation().first}, {"second", q->rotation().second},
                 {"angle", q->rotation().angle}, {"numbers", binary(q->numbers())}};
    layers.push_back({{"queries", queries}, {"d_key", d_key}, {"d_value", d_value}, {"heads", heads}});
  }
  for (const Memory::Epoch& e : memory.epochs()) epochs.push_back({e.first, e.base});
  return json::to_cbor({{"schema", kSchema}, {"precision", coding(memory.precision()).name}, {"n_past", memory.n_past()}, {"holds_base", memory.holds_base()},
                        {"epochs", epochs}, {"layers", layers}});
}

void from_bytes(std::span<const uint8_t> bytes, Memory& memory) {
  memory.clear();
  try {
    const json from = json::from_cbor(bytes.begin(), bytes.end());
    if (from.at("schema") != kSchema || from.at("precision") != coding(memory.precision()).name) throw InputError("");
    std::vector<Memory::Epoch> epochs;
    for (const json& e : from.at("epochs")) epochs.push_back({e.at(0), e.at(1)});
    if (epochs.empty() || epochs[0].first != 0) throw InputError("");
    const json& layers = from.at("layers");
    for (size_t i = 0; i < layers.size(); ++i) {
      const json& heads = layers[i].at("heads");
      if (heads.empty()) continue;
      Layer& layer = memory.layer(static_cast<int>(i), static_cast<int>(heads.size()), layers[i].at("d_key"), layers[i].at("d_value"));
      if (const json& q = layers[i].at("queries"); !q.is_null()) {
        Rotation rotation{q.at("first"), q.at("second"), q.at("angle")};
        const auto sound = [&](const std::vector<int>& components) {
          return components.size() == rotation.angle.size() && std::ranges::all_of(components, [&](int c) { return c >= 0 && c < layer.storage->d_key; });
        };
        const int n_head = q.at("n_head");
        if (!sound(rotation.first) || !sound(rotation.second) || n_head < 1 || n_head % static_cast<int>(heads.size()) != 0) throw InputError("");
        layer.queries.emplace(n_head, layer.storage->d_key, q.at("scale"), rotation);
        if (!layer.queries->restore(values_of<float>(q.at("numbers")))) throw InputError("");
      }
      for (size_t h = 0; h < heads.size(); ++h) read_head(heads[h], *layer.storage, layer.heads[h]);
    }
    memory.restore(from.at("n_past"), std::move(epochs));
    if (from.at("holds_base")) memory.hold_base();
  } catch (const std::bad_alloc&) {
    memory.clear();
    throw;
  } catch (const std::exception&) {
    memory.clear();
    throw InputError("these bytes are no saved memory of such a session; save one again with the same --kv-type");
  }
}

}  // namespace sinkscope::cache
