#include <filesystem>
#include <fstream>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "io/encoding.h"
#include "io/places.h"
#include "io/safetensors.h"
#include "io/sha256.h"
#include "sinkscope/atomic_file.h"
#include "sinkscope/error.h"

namespace sinkscope {
namespace {

namespace fs = std::filesystem;

class Folder : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = (fs::temp_directory_path() / "sinkscope-test-XXXXXX").string();
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    folder = name;
  }
  void TearDown() override { fs::remove_all(folder); }
  std::string path(const std::string& name) const { return (folder / name).string(); }
  static std::string content(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  size_t n_file() const { return std::distance(fs::directory_iterator(folder), fs::directory_iterator()); }
  fs::path folder;
};

using AtomicFileTest = Folder;
using SafetensorsTest = Folder;
using Sha256Test = Folder;
using PlacesTest = Folder;

TEST_F(AtomicFileTest, AppearsWholeOnCommit) {
  AtomicFile file(path("a"));
  file.write("hello ");
  file.write("world");
  EXPECT_FALSE(fs::exists(path("a")));
  file.commit();
  EXPECT_EQ(content(path("a")), "hello world");
  EXPECT_EQ(n_file(), 1u);
}

TEST_F(AtomicFileTest, WithoutCommitTheOldFileStays) {
  std::ofstream(path("a")) << "old";
  {
    AtomicFile file(path("a"));
    file.write("new");
  }
  EXPECT_EQ(content(path("a")), "old");
  EXPECT_EQ(n_file(), 1u);
}

TEST_F(AtomicFileTest, FilesThatBelongTogetherAppearTogether) {
  AtomicFile a(path("a")), b(path("b"));
  a.write("1");
  b.write("2");
  AtomicFile* both[] = {&a, &b};
  commit_together(both);
  EXPECT_EQ(content(path("a")) + content(path("b")), "12");
  EXPECT_EQ(n_file(), 2u);
}

TEST_F(AtomicFileTest, UnfinishedFilesCanBeRemovedFromASignalHandler) {
  AtomicFile file(path("a"));
  EXPECT_EQ(n_file(), 1u);
  remove_unfinished_files();
  EXPECT_EQ(n_file(), 0u);
}

TEST_F(AtomicFileTest, PlacesThatCannotBeWrittenAreRefusedAtOnce) {
  EXPECT_THROW(AtomicFile(path("no/such/folder/a")), InputError);
  EXPECT_THROW(AtomicFile(folder.string()), InputError);
}

TEST_F(SafetensorsTest, PartsLandWhereTheHeaderSays) {
  const std::vector<float> row = {1, 2, 3};
  const std::vector<int32_t> one = {-7};
  io::SafetensorsWriter file(path("a"), {{"x", "F32", {2, 3}}, {"n", "I32", {2}}}, {{"schema", "test"}});
  file.write("x", 3, std::span<const float>(row));
  file.write("n", 1, std::span<const int32_t>(one));
  EXPECT_THROW(file.write("x", 4, std::span<const float>(row)), InternalError);
  file.file().commit();

  const std::string bytes = content(path("a"));
  uint64_t length = 0;
  std::memcpy(&length, bytes.data(), 8);
  const auto header = nlohmann::json::parse(bytes.substr(8, length));
  EXPECT_EQ(header["__metadata__"]["schema"], "test");
  EXPECT_EQ(header["x"]["shape"], (std::vector<int>{2, 3}));
  EXPECT_EQ(header["n"]["data_offsets"], (std::vector<int>{24, 32}));
  ASSERT_EQ(bytes.size(), 8 + length + 32);
  float x[6];
  std::memcpy(x, bytes.data() + 8 + length, sizeof x);
  EXPECT_EQ(std::vector<float>(x, x + 6), (std::vector<float>{0, 0, 0, 1, 2, 3}));
}

TEST_F(SafetensorsTest, WhatIsWrittenIsRead) {
  const std::vector<float> row = {1, 2, 3};
  const std::vector<uint8_t> bytes = {7, 255};
  io::SafetensorsWriter writer(path("a"), {{"b", "U8", {3}}, {"x", "F32", {2, 3}}}, {{"schema", "test"}});
  writer.write("x", 3, std::span<const float>(row));
  writer.write("b", 1, std::span<const uint8_t>(bytes));
  io::SafetensorsReader before(writer.file().unfinished());  // before it has its name
  EXPECT_EQ(before.shape("x", "F32", 2), (std::vector<int64_t>{2, 3}));
  writer.file().commit();
  io::SafetensorsReader reader(path("a"));
  EXPECT_EQ(reader.metadata(), (std::map<std::string, std::string>{{"schema", "test"}}));
  std::vector<float> x(4);
  reader.read("x", 2, std::span(x));
  EXPECT_EQ(x, (std::vector<float>{0, 1, 2, 3}));
  std::vector<uint8_t> b(3);
  reader.read("b", 0, std::span(b));
  EXPECT_EQ(b, (std::vector<uint8_t>{0, 7, 255}));
  EXPECT_TRUE(reader.has("x"));
  EXPECT_FALSE(reader.has("y"));
  EXPECT_THROW(reader.shape("y", "F32", 2), InputError);
  EXPECT_THROW(reader.shape("x", "F32", 1), InputError);
  EXPECT_THROW(reader.shape("x", "I32", 2), InputError);
  EXPECT_THROW(reader.read("x", 3, std::span(x)), InternalError);
}

TEST_F(SafetensorsTest, DamagedFilesAreRefused) {
  const auto file = [&](const std::string& header, size_t n_data, uint64_t length) {
    std::ofstream out(path("a"), std::ios::binary);
    out.write(reinterpret_cast<const char*>(&length), 8);
    out << header << std::string(n_data, 'x');
  };
  const std::string good = R"({"x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})";
  file(good, 8, good.size());
  EXPECT_NO_THROW(io::SafetensorsReader(path("a")));
  file(good, 7, good.size());
  EXPECT_THROW(io::SafetensorsReader(path("a")), InputError);
  for (const uint64_t length : {uint64_t{0}, uint64_t{3}, good.size() + 9, uint64_t{1} << 40, ~uint64_t{0}}) {
    file(good, 8, length);
    EXPECT_THROW(io::SafetensorsReader(path("a")), InputError) << length;
  }
  for (const char* bad : {R"([1])", R"({"x":1})", R"({"x":{"dtype":"F32","shape":[2]}})", R"({"x":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}})",
                          R"({"x":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}})", R"({"x":{"dtype":"F32","shape":[2],"data_offsets":[8,16]}})",
                          R"({"x":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}})", R"({"x":{"dtype":"F32","shape":["2"],"data_offsets":[0,8]}})",
                          R"({"x":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}})", R"({"x":{"dtype":"F32","shape":[2],"data_offsets":[-8,0]}})",
                          R"({"__metadata__":{"a":1}})"}) {
    file(bad, 8, std::string(bad).size());
    EXPECT_THROW(io::SafetensorsReader(path("a")), InputError) << bad;
  }
  std::ofstream(path("short")) << "abc";
  EXPECT_THROW(io::SafetensorsReader(path("short")), InputError);
  EXPECT_THROW(io::SafetensorsReader(path("none")), InputError);
  EXPECT_THROW(io::SafetensorsReader(folder.string()), InputError);
}

TEST(Encoding, Base64IsThatOfRfc4648) {
  for (const auto& [bytes, text] : {std::pair("", ""), {"f", "Zg=="}, {"fo", "Zm8="}, {"foo", "Zm9v"}, {"foob", "Zm9vYg=="}, {"fooba", "Zm9vYmE="}, {"foobar", "Zm9vYmFy"}})
    EXPECT_EQ(io::base64(bytes), text);
  // More than OpenSSL is given at once: every three bytes are four letters, wherever they stand.
  std::string many((size_t{3} << 24) + 4, '\0');
  many.back() = '\xff', many[many.size() - 2] = '\xff';
  const std::string text = io::base64(many);
  EXPECT_EQ(text.size(), (many.size() + 2) / 3 * 4);
  EXPECT_EQ(text.substr(text.size() - 8), io::base64(many.substr(many.size() - 4)));
  EXPECT_EQ(text.find_first_not_of('A'), text.size() - 6);
}

TEST_F(PlacesTest, NoFileIsWrittenOverAnother) {
  EXPECT_NO_THROW(io::check_places({path("in")}, {{"--json", path("a")}, {"--svg", ""}, {"--report", path("b")}}));
  EXPECT_THROW(io::check_places({path("in")}, {{"--json", path("x/../in")}}), UsageError);
  EXPECT_THROW(io::check_places({}, {{"--json", path("a")}, {"--report", path("a")}}), UsageError);
  EXPECT_THROW(io::check_places({}, {{"--json", "-"}}), UsageError);
}

TEST_F(Sha256Test, EqualsThePublishedVectors) {
  std::ofstream(path("abc")) << "abc";
  std::ofstream(path("empty")).flush();
  EXPECT_EQ(io::sha256_of_file(path("abc")), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(io::sha256_of_file(path("empty")), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_THROW(io::sha256_of_file(path("none")), InputError);
}

}  // namespace
}  // namespace sinkscope
