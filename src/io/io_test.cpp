#include <filesystem>
#include <fstream>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

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

TEST_F(Sha256Test, EqualsThePublishedVectors) {
  std::ofstream(path("abc")) << "abc";
  std::ofstream(path("empty")).flush();
  EXPECT_EQ(io::sha256_of_file(path("abc")), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(io::sha256_of_file(path("empty")), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_THROW(io::sha256_of_file(path("none")), InputError);
}

}  // namespace
}  // namespace sinkscope
