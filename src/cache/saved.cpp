#include "cache/saved.h"

#include <cstring>
#include <new>

#include <nlohmann/json.hpp>

#include "sinkscope/error.h"

namespace sinkscope::cache {
namespace {

using nlohmann::json;

constexpr const char* kSchema = "sinkscope.memory/1";

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
  std::memcpy(values.data(), from.data(), from.size());
  return values;
}

json head_json(const RowShape& shape, const Head& head) {
  std::vector<std::byte> keys, values;
  head.over_runs([&](int, int n, Block& block, int at) {
    keys.insert(keys.end(), block.key(at), block.key(at) + n * shape.key_bytes());
    values.insert(values.end(), block.value(at), block.value(at) + n * shape.value_bytes());
  });
  json seen = json::array();
  for (const Observation& o : head.observations()) seen.push_back({{"n_query", o.n_query}, {"mass", binary(o.mass)}});
  return {{"positions", binary(head.positions())}, {"keys", binary(keys)}, {"values", binary(values)}, {"observations", seen}};
}

void read_head(const json& from, Memory& memory, Layer& layer, int head) {
  const auto positions = values_of<int32_t>(from.at("positions"));
  const auto keys = values_of<std::byte>(from.at("keys")), values = values_of<std::byte>(from.at("values"));
  if (keys.size() != positions.size() * layer.shape.key_bytes() || values.size() != positions.size() * layer.shape.value_bytes()) throw InputError("");
  for (size_t i = 0; i < positions.size(); ++i)
    memory.restore_row(layer, head, positions[i], keys.data() + i * layer.shape.key_bytes(), values.data() + i * layer.shape.value_bytes());
  for (const json& o : from.at("observations")) {
    Observation& seen = layer.heads[head].observations().emplace_back(Observation{o.at("n_query"), values_of<float>(o.at("mass"))});
    if (seen.mass.size() > positions.size()) throw InputError("");
  }
}

}  // namespace

std::vector<uint8_t> to_bytes(const Memory& memory) {
  json layers = json::array(), epochs = json::array();
  for (const Layer& layer : memory.layers()) {
    json heads = json::array();
    for (const Head& head : layer.heads) heads.push_back(head_json(layer.shape, head));
    layers.push_back({{"d_key", layer.shape.d_key}, {"d_value", layer.shape.d_value}, {"heads", heads}});
  }
  for (const Memory::Epoch& e : memory.epochs()) epochs.push_back({e.first, e.base});
  return json::to_cbor({{"schema", kSchema}, {"precision", memory.precision() == Precision::f16 ? "f16" : "f32"}, {"n_past", memory.n_past()},
                        {"epochs", epochs}, {"layers", layers}});
}

void from_bytes(std::span<const uint8_t> bytes, Memory& memory) {
  memory.clear();
  try {
    const json from = json::from_cbor(bytes.begin(), bytes.end());
    if (from.at("schema") != kSchema || (from.at("precision") == "f16") != (memory.precision() == Precision::f16)) throw InputError("");
    std::vector<Memory::Epoch> epochs;
    for (const json& e : from.at("epochs")) epochs.push_back({e.at(0), e.at(1)});
    if (epochs.empty() || epochs[0].first != 0) throw InputError("");
    const json& layers = from.at("layers");
    for (size_t i = 0; i < layers.size(); ++i) {
      const json& heads = layers[i].at("heads");
      if (heads.empty()) continue;
      Layer& layer = memory.layer(static_cast<int>(i), static_cast<int>(heads.size()), layers[i].at("d_key"), layers[i].at("d_value"));
      for (size_t h = 0; h < heads.size(); ++h) read_head(heads[h], memory, layer, static_cast<int>(h));
    }
    memory.restore(from.at("n_past"), std::move(epochs));
  } catch (const std::bad_alloc&) {
    memory.clear();
    throw;
  } catch (const std::exception&) {
    memory.clear();
    throw InputError("these bytes are no saved memory of such a session; save one again with the same --kv-type");
  }
}

}  // namespace sinkscope::cache
