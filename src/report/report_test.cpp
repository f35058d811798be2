#include <cmath>
#include <cstring>
#include <filesystem>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>
#include <zlib.h>

#include "io/encoding.h"
#include "io/safetensors.h"
#include "report/coding.h"
#include "report/html.h"
#include "report/payload.h"
#include "report/svg.h"
#include "sinkscope/error.h"

namespace sinkscope::report {
namespace {

TEST(Coding, AlphaIsWithinHalfAStepOfTheSquareRoot) {
  for (int i = 0; i <= 10000; ++i) {
    const float alpha = static_cast<float>(i) / 10000;
    EXPECT_LE(std::abs(std::sqrt(alpha_of(alpha_code(alpha))) - std::sqrt(alpha)), .5 / 255 + 1e-7) << alpha;
  }
  EXPECT_EQ(alpha_code(0), 0);
  EXPECT_EQ(alpha_code(1), 255);
  EXPECT_EQ(alpha_code(1.00001f), 255);  // sums of rows round
  EXPECT_EQ(alpha_code(NAN), 0);
}

TEST(Coding, WeightsAreWithinHalfAStepOfTheLogarithm) {
  for (float w = 1; w >= 1.0f / 1024; w *= .999f) {
    ASSERT_GT(weight_code(w), 0) << w;
    ASSERT_LE(std::abs(std::log2(weight_of(weight_code(w))) - std::log2(w)), .5 / kCodesPerOctave + 1e-6) << w;
  }
  EXPECT_EQ(weight_code(1), 255);
  EXPECT_EQ(weight_code(1.00001f), 255);
  EXPECT_EQ(weight_code(1.0f / 1024), 1);
  for (const float below : {.9f / 1024, 0.0f, -0.0f, NAN}) EXPECT_EQ(weight_code(below), 0) << below;
  EXPECT_EQ(weight_of(0), 0);
}

// The arrays of a payload, as the app finds them.
struct Opened {
  nlohmann::json header;
  std::string data;

  explicit Opened(const std::string& bytes) {
    uint64_t length = 0;
    std::memcpy(&length, bytes.data(), sizeof length);
    header = nlohmann::json::parse(bytes.substr(8, length));
    data = bytes.substr(8 + length);
  }
  std::string array(const std::string& name) const {
    const auto offsets = header.at(name).at("data_offsets");
    return data.substr(offsets[0], offsets[1].get<size_t>() - offsets[0].get<size_t>());
  }
};

class PayloadTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = (std::filesystem::temp_directory_path() / "sinkscope-test-XXXXXX").string();
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    folder = name;
  }
  void TearDown() override { std::filesystem::remove_all(folder); }
  // One prompt, 1 layer, 2 heads, 3 positions, one map.
  std::string arrays(int n_head = 2) const {
    const std::string path = (folder / "arrays").string();
    io::SafetensorsWriter writer(path, {{"column_sum", "F32", {1, 1, n_head, 3}}, {"column_n_row", "U32", {1, 1, n_head, 3}}, {"bands", "F32", {1, n_head, 1, 1}}, {"map", "F32", {1, 1, 3, 3}}}, {});
    const std::vector<float> sums = {3, .5f, 0, NAN, 0, 1}, bands = {.25f, NAN}, map = {1, 0, 0, .5f, .5f, 0, .999f, .0005f, .0005f};
    const std::vector<uint32_t> n_row = {3, 2, 1, 0, 2, 1};
    writer.write("column_sum", 0, std::span<const float>(sums));
    writer.write("column_n_row", 0, std::span<const uint32_t>(n_row));
    writer.write("bands", 0, std::span<const float>(bands));
    writer.write("map", 0, std::span<const float>(map));
    writer.file().commit();
    return path;
  }
  std::filesystem::path folder;
  const std::string document = R"({"schema":"sinkscope.profile/1","model":{"n_layer":1,"n_head":2},"run":{"length":3}})";
};

TEST_F(PayloadTest, HoldsDocumentsAsTheyAreAndArraysInBytes) {
  const Opened p(payload({{"one", document, arrays()}, {"zwei \"", "{\"é\": \"</script>\"}"}}));
  EXPECT_EQ(p.header["__metadata__"]["schema"], "sinkscope.report/1");
  EXPECT_EQ(nlohmann::json::parse(p.header["__metadata__"]["names"].get<std::string>()), (nlohmann::json{"one", "zwei \""}));
  EXPECT_EQ(p.array("0.document"), document);
  EXPECT_EQ(p.array("1.document"), "{\"é\": \"</script>\"}");
  EXPECT_EQ(p.header["0.alpha"]["shape"], (std::vector<int>{1, 1, 2, 3}));
  EXPECT_EQ(p.array("0.alpha"), std::string("\xff\x80\0\0\0\xff", 6));  // sqrt(.25) is half of all
  EXPECT_EQ(p.header["0.bands"]["shape"], (std::vector<int>{1, 2, 1, 1}));
  EXPECT_EQ(p.array("0.bands"), std::string("\x80\0", 2));
  EXPECT_EQ(p.array("0.map"), std::string("\xff\0\0\xe6\xe6\0\xff\0\0", 9));  // .5 is an octave, 25 codes, below
  EXPECT_FALSE(p.header["__metadata__"].contains("0.map_floor"));
}

TEST_F(PayloadTest, ArraysOfAnotherDocumentAreRefused) {
  EXPECT_THROW(payload({{"one", document, arrays(3)}}), InputError);
  EXPECT_THROW(payload({{"one", "{}", arrays()}}), InputError);
  EXPECT_THROW(payload({{"one", document, (folder / "none").string()}}), InputError);
}

TEST(Payload, PromptsAreAsManyAsHaveRoomAndAtLeastOne) {
  EXPECT_EQ(n_prompt_shown(100, 10), 100);
  EXPECT_EQ(n_prompt_shown(100, 30 * 9 * 2048), 4);
  EXPECT_EQ(n_prompt_shown(100, 128 * 128 * 4096), 1);
}

// What stands between the tags, undone.
std::string data_of(const std::string& page, size_t n) {
  const std::string open = "application/octet-stream\">";
  const size_t begin = page.find(open) + open.size();
  std::string text = page.substr(begin, page.find("</script>", begin) - begin), bytes;
  for (size_t i = 0; i < text.size(); i += 4) {
    uint32_t word = 0;
    for (const char c : text.substr(i, 4)) word = word << 6 | static_cast<uint32_t>(c == '=' ? 0 : std::string_view("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/").find(c));
    for (const int shift : {16, 8, 0}) bytes += static_cast<char>(word >> shift & 0xff);
  }
  std::string plain(n, ' ');
  uLongf length = n;
  EXPECT_EQ(uncompress(reinterpret_cast<Bytef*>(plain.data()), &length, reinterpret_cast<const Bytef*>(bytes.data()), bytes.size()), Z_OK);
  plain.resize(length);
  return plain;
}

TEST(Html, DataTakesTheEmptyPlaceAndNothingElseChanges) {
  const std::string front = "<html><script>let a = '<script';</script><script id=\"sinkscope-data\" type=\"application/octet-stream\">", back = "</script></html>";
  const std::string data = "</script><script>alert(1)</script>\0 &";
  const std::string page = html(front + back, data);
  EXPECT_TRUE(page.starts_with(front) && page.ends_with(back));
  EXPECT_EQ(page.find("alert"), page.npos);
  EXPECT_EQ(data_of(page, data.size()), data);
  EXPECT_THROW(html("<html></html>", data), InternalError);
  EXPECT_THROW(html(page, data), InternalError);
}

TEST(SvgTest, TextIsTextWhateverItHolds) {
  EXPECT_EQ(escaped("<script>\"&\"</script>"), "&lt;script&gt;&quot;&amp;&quot;&lt;/script&gt;");
  EXPECT_EQ(escaped("a\nb\x7f\x01"), "a&#9226;b&#9249;&#9217;");
  EXPECT_EQ(escaped("é\xef\xbf\xbe"), "é\xef\xbf\xbd");
  Svg svg(10, 10, "<");
  svg.text(1, 2, "</text><script>", {});
  EXPECT_EQ(svg.str().find("<script>"), std::string::npos);
}

TEST(SvgTest, TheRampGoesFromItsFirstColourToItsLast) {
  EXPECT_EQ(ramp_colour(0), palette().ramp.front());
  EXPECT_EQ(ramp_colour(1), palette().ramp.back());
  EXPECT_EQ(ramp_colour(-1), palette().ramp.front());
  EXPECT_EQ(ramp_colour(2), palette().ramp.back());
  EXPECT_EQ(ramp_colour(.5), palette().ramp[4]);
}

}  // namespace
}  // namespace sinkscope::report
