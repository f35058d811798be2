"""What users give to the program: models, texts, tokens and options, and what is wrong with them."""
import json
import os
import random
import shutil
import struct
import unittest

from program import FAILED, MODEL, SMALL, WRONG_USE, Test, as_user, environment, words


class Models(Test):
    def setUp(self):
        super().setUp()
        self.write("text", words(60))

    def refuses(self, model, *says):
        self.refused(FAILED, "profile", model, "text", "--json", "out.json", says=says)

    def test_a_missing_file(self):
        self.refuses("no-such.gguf", "no-such.gguf")

    def test_a_missing_file_says_which_names_there_are(self):
        self.refuses("smollm", "smollm", "smollm2-135m")

    def test_a_known_name_that_is_not_there_says_how_to_fetch_it(self):
        self.refused(FAILED, "profile", "smollm2-135m", "text", says=("smollm2-135m", "fetch-model smollm2-135m"),
                     env=environment(XDG_CACHE_HOME=self.path("no-cache")))

    def test_a_known_name_is_a_model(self):
        os.makedirs(self.path("cache/sinkscope/models"))
        os.symlink(MODEL, self.path("cache/sinkscope/models/smollm2-135m.gguf"))
        self.works("profile", "smollm2-135m", "text", *SMALL, env=environment(XDG_CACHE_HOME=self.path("cache")))

    def test_an_empty_file(self):
        self.refuses(self.write("empty.gguf", ""), "empty.gguf", "is empty")
        self.refuses("/dev/null", "/dev/null")

    def test_a_folder(self):
        os.mkdir(self.path("folder"))
        self.refuses("folder", "folder", "is a folder")
        self.refuses(".", "is a folder")

    def test_a_name_that_no_file_can_have(self):
        self.refuses("x" * 300)
        self.refuses("x/" * 3000)
        self.refuses("")
        self.refuses("text/inside")

    def test_a_loop_of_links(self):
        os.symlink("loop", self.path("loop"))
        self.refuses("loop", "loop")

    def test_a_link_to_nothing(self):
        os.symlink("nothing", self.path("link"))
        self.refuses("link", "link")

    def test_a_file_that_may_not_be_read(self):
        self.write("secret.gguf", "GGUF")
        os.chmod(self.path("secret.gguf"), 0)
        self.refused(FAILED, "profile", "secret.gguf", "text", says=("secret.gguf", "denied"), preexec_fn=as_user)

    def test_a_folder_that_may_not_be_entered(self):
        os.mkdir(self.path("closed"))
        os.chmod(self.path("closed"), 0)
        self.addCleanup(os.chmod, self.path("closed"), 0o700)
        ended = self.run_program("profile", "closed/model.gguf", "text", preexec_fn=as_user)
        self.assertEqual(ended.code, FAILED, f"\n{ended}")
        self.assert_sentence(ended, "closed/model.gguf")

    def test_no_gguf(self):
        for name, content in {"text.gguf": words(20), "zip.gguf": b"PK\3\4" + bytes(100), "short.gguf": b"GG", "turned.gguf": b"FUGG" + bytes(64),
                              "zeros.gguf": bytes(1000)}.items():
            with self.subTest(name):
                self.refuses(self.write(name, content), name, "not a GGUF file")

    def test_a_truncated_file(self):
        size = os.path.getsize(MODEL)
        for n in (4, 5, 8, 16, 23, 24, 30, 100, 5000, 100000, size // 20, size - 1):
            with self.subTest(bytes=n):
                with open(MODEL, "rb") as whole, open(self.path("cut.gguf"), "wb") as cut:
                    while n > 0 and (block := whole.read(min(n, 1 << 20))):
                        cut.write(block)
                        n -= len(block)
                self.refuses("cut.gguf", "cut.gguf")

    def test_another_version(self):
        for version in (0, 1, 4, 0x03000000, 0xffffffff):
            with self.subTest(version=version):
                self.refuses(self.write("version.gguf", struct.pack("<4sIQQ", b"GGUF", version, 0, 0) + bytes(64)), "version.gguf")

    def test_no_model_in_it(self):
        self.refuses(self.write("hollow.gguf", struct.pack("<4sIQQ", b"GGUF", 3, 0, 0) + bytes(64)), "hollow.gguf")

    def test_an_unknown_architecture(self):
        def text(s):
            return struct.pack("<Q", len(s)) + s
        for architecture in (b"frob", b"", b"frob\x1b[31m\n", b"\xff\xfe"):
            with self.subTest(architecture=architecture):
                self.refuses(self.write("arch.gguf", struct.pack("<4sIQQ", b"GGUF", 3, 0, 1) + text(b"general.architecture") +
                                        struct.pack("<I", 8) + text(architecture) + bytes(64)), "arch.gguf")

    def test_a_name_with_control_characters_is_shown_safely(self):
        self.refuses("no\n\x1b[31mred\x07file", "red")


class Texts(Test):
    def refuses(self, *texts, says=(), options=(), code=FAILED, **more):
        self.refused(code, "profile", MODEL, *texts, *options, "--json", "out.json", says=says, **more)

    def test_a_missing_file(self):
        self.refuses("none.txt", says=("none.txt",))
        self.refuses(self.write("good.txt", words(200)), "none.txt", says=("none.txt",))

    def test_a_folder(self):
        self.refuses(".", says=("is a folder",))

    def test_an_empty_file(self):
        self.refuses(self.write("empty.txt", ""), says=("empty.txt", "64"))
        self.refuses(self.write("empty.txt", ""), options=("--length", "0"), says=("empty.txt",))

    def test_a_name_that_no_file_can_have(self):
        self.refuses("x" * 300)
        os.symlink("loop", self.path("loop"))
        self.refuses("loop", says=("loop",))

    def test_a_file_that_may_not_be_read(self):
        os.chmod(self.path(self.write("secret.txt", words(100))), 0)
        # The model stands in a folder that only root may enter: a copy of its head is not enough here.
        os.link(MODEL, self.path("model.gguf")) if os.stat(MODEL).st_dev == os.stat(self.folder).st_dev else shutil.copy(MODEL, self.path("model.gguf"))
        self.refused(FAILED, "profile", "model.gguf", "secret.txt", says=("secret.txt", "denied"), preexec_fn=as_user)

    def test_too_short(self):
        self.write("short.txt", words(12))
        self.refuses("short.txt", says=("short.txt", "tokens", "--length 64", "more text"))
        self.refuses("short.txt", "short.txt", says=("tokens", "--length 64"))
        self.refuses("short.txt", options=("--length", "2147483647"), says=("2147483647",))
        self.refuses(self.write("one.txt", "a"), options=("--length", "0", "--bos", "never"), says=("one.txt", "at least 2"))

    def test_an_empty_standard_input(self):
        self.refuses("-", says=("standard input",), options=("--length", "0"))
        self.refuses("-", says=("standard input",))

    def test_neither_text_nor_tokens(self):
        self.refuses(code=WRONG_USE, says=("--tokens",))

    def test_both_text_and_tokens(self):
        self.write("good.txt", words(200))
        self.write("tokens", "[[1,2,3]]")
        self.refuses("good.txt", options=("--tokens", "tokens"), code=WRONG_USE, says=("--tokens",))

    def test_broken_utf8_is_a_text_or_a_sentence(self):
        for i, broken in enumerate((b"\xff", b"\xc3", b"\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xf8\x88\x80\x80\x80", b"\xc0\x80", b"\xe2\x82",
                                    bytes(random.Random(1).randrange(256) for _ in range(2000)))):
            with self.subTest(broken=broken[:8]):
                self.write("broken.txt", b"Hello world " + broken + b" and more of it")
                ended = self.run_program("profile", MODEL, "broken.txt", "--length", "0", "--context", "32")
                if ended.code == 0:
                    continue
                self.assertEqual(ended.code, FAILED, f"\n{ended}")
                self.assert_sentence(ended, "broken.txt")

    def test_zero_bytes_are_text(self):
        self.write("zero.txt", b"Hello\0world and\0\0more")
        self.works("profile", MODEL, "zero.txt", "--length", "0")


class Tokens(Test):
    """--tokens: an array of arrays of ids."""

    def refuses(self, content, *says):
        name = self.write("tokens.json", content)
        shown = content if len(content) < 60 else content[:60]
        with self.subTest(shown):
            self.refused(FAILED, "profile", MODEL, "--tokens", name, "--json", "out.json", says=("tokens.json", *says))

    def test_outside_the_vocabulary(self):
        for token in ("10000000", "-1", "-2147483648", "2147483648", "4294967296", "4294967297", "9223372036854775807", "9223372036854775808",
                      "-9223372036854775808", "18446744073709551615"):
            self.refuses(f"[[1,2],[3,{token}]]", token, "0 to ")

    def test_huge_numbers(self):
        for token in ("18446744073709551616", "-9223372036854775809", "9" * 40, "1e99", "1e999", "-1e999", "9" * 1000000, "1" + "0" * 400):
            self.refuses(f"[[1,{token}]]")

    def test_no_whole_numbers(self):
        for token in ("1.0", "1.5", "1e0", "-0.0", '"1"', '"a"', "null", "true", "false", '""', '"\\u001b[31m\\n"', '"' + "x" * 1000000 + '"'):
            self.refuses(f"[[1,{token}]]")

    def test_wrong_nesting(self):
        for content in ("[]", "[[]]", "[[1]]", "[1,2]", "[[[1,2]]]", "[[1,[2]]]", "[[1,2],3]", "[[1,2],[]]", "[[1,2],[3]]", "{}", '{"a":[[1,2]]}', "5", '"a"',
                        "null", "[[1,{}]]", '[[1,{"a":2}]]', "[null]"):
            self.refuses(content, "token id")

    def test_no_json(self):
        for content in ("", " ", "x", "[[1,2]", "[[1,2]] x", "[[1,2],]", "[[1,,2]]", "[[1 2]]", "[[NaN,2]]", "[[0x1,2]]", "[[01,2]]", "[[+1,2]]", "[[1,2]][[3,4]]",
                        "['a']", b"\xff\xfe[\0[\0", b'[["\xff",1]]', b"\0", "[" * 100, "]", "// c\n[[1,2]]"):
            self.refuses(content, "JSON")

    def test_deep_nesting_needs_no_stack(self):
        for depth in (1000, 100000, 3000000):
            self.refuses("[" * depth)
            self.refuses("[" * depth + "]" * depth)
            self.refuses("[[1," + "[" * depth + "]" * depth + "]]")
            self.refuses("[[1," + '{"a":' * depth + "1" + "}" * depth + "]]")
            self.refuses('{"a":' * depth)

    def test_a_missing_file_and_a_folder(self):
        self.refused(FAILED, "profile", MODEL, "--tokens", "none.json", says=("none.json",))
        self.refused(FAILED, "profile", MODEL, "--tokens", ".", says=("is a folder",))
        self.refused(FAILED, "profile", MODEL, "--tokens", "x" * 300)

    def test_white_space_and_byte_order_mark_are_fine(self):
        for content in (b"\xef\xbb\xbf[[1,2]]", b" [ [ 1 ,\n 2 ] ,\t[3,4] ]\r\n"):
            self.write("tokens.json", content)
            self.works("profile", MODEL, "--tokens", "tokens.json")

    def test_standard_input(self):
        self.works("profile", MODEL, "--tokens", "-", "--json", "out.json", stdin=b"[[1,2,3],[4,5]]")
        run = self.load("out.json")["run"]
        self.assertEqual((run["n_prompt"], run["n_token"], run["length"], run["shortest"]), (2, 5, 3, 2))

    def test_context_cuts_them(self):
        self.write("tokens.json", json.dumps([list(range(1, 21)), [1, 2, 3]]))
        self.works("profile", MODEL, "--tokens", "tokens.json", "--context", "8", "--json", "out.json")
        self.assertEqual(self.load("out.json")["run"]["length"], 8)


class Options(Test):
    def setUp(self):
        super().setUp()
        self.write("text", words(200))

    def refuses(self, *options, says=(), code=WRONG_USE):
        with self.subTest(" ".join(options)):
            self.refused(code, "profile", MODEL, "text", *options, says=says)

    def test_no_subcommand(self):
        self.refused(WRONG_USE, says=("profile", "view"))
        self.refused(WRONG_USE, "frob", says=("frob", "--help"))
        self.refused(WRONG_USE, "--frob", says=("--frob",))

    def test_no_model(self):
        self.refused(WRONG_USE, "profile", says=("MODEL",))

    def test_unknown_options(self):
        for option in ("--frob", "--lenght", "-x", "--json-file", "--frob=3", "--\x1b[31m"):
            self.refuses(option, says=(option.split("=")[0].replace("\x1b", ""),) if "\x1b" not in option else ())

    def test_no_number(self):
        for option in ("--length", "--prompts", "--epsilon", "--min-rows", "--context", "--batch", "--threads", "--gpu-layers", "--seed"):
            for value in ("x", "", "1x", "99999999999999999999", "0x", "1e400x", "--", "٣"):
                self.refuses(f"{option}={value}", says=(option, "sinkscope profile --help") if value == "x" else (option,))

    def test_fractions(self):
        for option in ("--length", "--prompts", "--threads", "--batch", "--seed"):
            self.refuses(option, "2.5", says=(option, "2.5"))

    def test_missing_values(self):
        for option in ("--length", "--json", "--tokens", "--epsilon", "--baseline", "--maps"):
            self.refuses(option, says=(option,))

    def test_given_twice(self):
        self.refuses("--length", "5", "--length", "6", says=("--length",))

    def test_lengths_below_two(self):
        for length in ("1", "-1", "-64", "-2147483648"):
            self.refuses("--length", length, says=("--length", length))

    def test_out_of_range(self):
        for option, value in (("--threads", "-1"), ("--threads", "100000"), ("--threads", "2147483647"), ("--batch", "0"), ("--batch", "-5"), ("--context", "1"),
                              ("--context", "-3"), ("--prompts", "-1"), ("--min-rows", "0"), ("--gpu-layers", "-1"), ("--epsilon", "0"),
                              ("--epsilon", "1"), ("--epsilon", "nan"), ("--epsilon", "inf"), ("--epsilon", "-0.3"), ("--epsilon", "1e999"),
                              ("--seed", "-1"), ("--seed", "4294967296")):
            self.refuses(option, value, says=(option,))

    def test_unknown_names(self):
        for option, says in (("--isa", "auto"), ("--kv-type", "q8_0"), ("--bos", "always"), ("--baseline", "repeat")):
            for value in ("frob", "AUTO", " ", "auto ", "\x1b[31m"):
                if (option, value) != ("--isa", "auto"):
                    self.refuses(option, value, says=(option, says))

    def test_unknown_names_with_tokens(self):
        self.write("tokens", "[[1,2,3]]")
        for option in ("--isa", "--kv-type", "--bos", "--baseline"):
            with self.subTest(option):
                self.refused(WRONG_USE, "profile", MODEL, "--tokens", "tokens", option, "frob", says=(option, "frob"))

    def test_wrong_use_is_said_before_the_model_is_read(self):
        for option, value in (("--length", "1"), ("--bos", "frob"), ("--kv-type", "frob"), ("--isa", "frob"), ("--baseline", "frob"),
                              ("--tokens", "both")):
            with self.subTest(option):
                self.refused(WRONG_USE, "profile", "no-such.gguf", "text", option, value, says=(option,))

    def test_maps(self):
        for value in ("frob", "0", "0:", ":0", "0:0:0", "0:0,1", "-1:0", "0:-1", "100000:0", "0:100000", "99999999999:0", "0:99999999999", " 0:0", "0: 0", "0x0:0"):
            self.refuses("--maps", value, "--arrays", "a.safetensors", says=("--maps", value))
        self.refuses("--maps", "0:0", says=("--arrays",))

    def test_instruction_sets_of_other_machines(self):
        self.refuses("--isa", "neon" if os.uname().machine == "x86_64" else "avx2", says=("--isa", "generic"))

    def test_help_and_version(self):
        for arguments in (("--help",), ("profile", "--help"), ("--version",)):
            ended = self.works(*arguments)
            self.assertTrue(ended.out)
            self.assertEqual(ended.err, b"")
        said = self.works("profile", "--help").out.decode()
        for option in ("--tokens", "--length", "--bos", "--baseline", "--epsilon", "--threads", "--batch", "--context", "--kv-type", "--json", "--arrays", "--sinkmap"):
            self.assertIn(option, said)

    def test_one_file_cannot_take_two_results(self):
        for a, b in (("--json", "--sinkmap"), ("--json", "--arrays"), ("--sinkmap", "--arrays")):
            self.refuses(a, "same", b, "same", *SMALL, says=("same",))
            self.refuses(a, "same", b, "./same", *SMALL, says=("same",))

    def test_a_result_cannot_replace_what_is_read(self):
        self.refuses("--json", "text", *SMALL, says=("text",))
        self.write("tokens", "[[1,2,3]]")
        self.refused(WRONG_USE, "profile", MODEL, "--tokens", "tokens", "--json", "tokens", says=("tokens",))
        os.symlink(MODEL, self.path("model.gguf"))
        self.refused(WRONG_USE, "profile", "model.gguf", "text", *SMALL, "--arrays", "model.gguf", says=("model.gguf",))

    def test_an_empty_file_name(self):
        for option in ("--json", "--sinkmap", "--arrays", "--tokens"):
            self.refuses(option, "", *SMALL, says=(option,))


if __name__ == "__main__":
    unittest.main(verbosity=2)
