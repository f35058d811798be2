"""scripts/fetch-text on packages made here: an apt-get of our own hands them out."""

import contextlib
import gzip
import importlib.machinery
import importlib.util
import io
import json
import os
import pathlib
import subprocess
import tempfile
import unittest
from unittest import mock

SCRIPT = str(pathlib.Path(__file__).parents[2] / "scripts" / "fetch-text")
loader = importlib.machinery.SourceFileLoader("fetch_text", SCRIPT)
fetch_text = importlib.util.module_from_spec(importlib.util.spec_from_loader("fetch_text", loader))
loader.exec_module(fetch_text)

APT = """#!/bin/sh
for package; do :; done
echo "$package" >>"$DEBS/asked"
cp "$DEBS/$package.deb" . || { echo "E: Unable to locate package $package" >&2; exit 100; }
"""
LONG = "word " * 1000 + "\n"


class FetchText(unittest.TestCase):
    def setUp(self):
        temp = tempfile.TemporaryDirectory()
        self.addCleanup(temp.cleanup)
        self.home = pathlib.Path(temp.name)
        self.folder = self.home / "text"
        debs = self.home / "debs"
        debs.mkdir()
        (debs / "apt-get").write_text(APT)
        (debs / "apt-get").chmod(0o755)
        self.asked = debs / "asked"
        packages = {"pods": fetch_text.pods, "sayings": fetch_text.fortunes, "words": fetch_text.dictionaries, "others": fetch_text.pods}
        for change in (mock.patch.dict(os.environ, DEBS=str(debs), PATH=f"{debs}:{os.environ['PATH']}"),
                       mock.patch.object(fetch_text, "PACKAGES", packages)):
            change.start()
            self.addCleanup(change.stop)
        self.deb("pods", {"usr/share/a.pod": b"=head1 NAME\n\nB<bold>\n"})
        self.deb("sayings", {"usr/share/games/fortunes/one": f"caf\u00e9\n%\n{LONG}%\nlast\f\n".encode("latin-1"),
                             "usr/share/games/fortunes/one.dat": b"\0"})
        self.deb("words", {"usr/share/dictd/w.dict.dz": gzip.compress(b"00-database-info\n who\na\n  first\n   [1913 Webster]\n"),
                           "usr/share/dictd/w.index": b"00-database-info\tA\tV\na\tV\tj\n"})
        self.deb("others", {"usr/share/b.pod": b"=head1 B\n"}, copyright_of="pods")

    def deb(self, name, files, copyright_of=None):
        root = self.home / "root" / name
        doc = root / "usr/share/doc" / name
        doc.parent.mkdir(parents=True)
        if copyright_of:
            doc.symlink_to(copyright_of)
        else:
            files = {f"usr/share/doc/{name}/copyright": b"See /usr/share/common-licenses/GPL-2.\n"} | files
        files = {"DEBIAN/control": f"Package: {name}\nVersion: 1.0\nArchitecture: all\nMaintainer: us\nDescription: a test\n".encode()} | files
        for path, data in files.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(data)
        subprocess.run(["dpkg-deb", "--build", "--root-owner-group", root, self.home / "debs" / f"{name}.deb"], check=True, capture_output=True)

    def run_it(self):
        with contextlib.redirect_stdout(io.StringIO()) as out, mock.patch("sys.argv", ["fetch-text", str(self.folder)]):
            fetch_text.main()
        return out.getvalue().split()

    def test_each_package_is_a_text_with_form_feeds_between_documents(self):
        self.assertEqual(self.run_it(), [f"{self.folder}/{name}.txt" for name in ("pods", "sayings", "words", "others")])
        self.assertEqual((self.folder / "pods.txt").read_text(), "NAME\n\nbold\n")
        self.assertEqual((self.folder / "sayings.txt").read_text(), f"caf\u00e9\n\n{LONG}\flast\n")
        self.assertEqual((self.folder / "words.txt").read_text(), "a\n  first\n")
        manifest = json.loads((self.folder / "manifest.json").read_text())
        self.assertEqual([t["sources"] for t in manifest["texts"]],
                         [["/usr/share/a.pod"], ["/usr/share/games/fortunes/one"], ["/usr/share/dictd/w.dict.dz"], ["/usr/share/b.pod"]])
        for text in manifest["texts"]:
            self.assertEqual((text["version"], text["licences"]), ("1.0", ["GPL-2"]))
            self.assertEqual(text["bytes"], (self.folder / text["file"]).stat().st_size)
        self.assertFalse(self.folder.with_name("text.partial").exists())

    def test_an_interrupted_fetch_goes_on_with_what_it_has(self):
        words = self.home / "debs" / "words.deb"
        words.rename(words.with_suffix(".away"))
        with self.assertRaisesRegex(fetch_text.Failure, "Unable to locate package words.*run 'apt-get update' as root"):
            self.run_it()
        self.assertFalse(self.folder.exists())
        words.with_suffix(".away").rename(words)
        self.run_it()
        self.assertEqual(self.asked.read_text().split(), ["pods", "sayings", "words", "words", "others"])
        before = sorted(p.stat().st_mtime_ns for p in self.folder.iterdir())
        self.run_it()
        self.assertEqual(sorted(p.stat().st_mtime_ns for p in self.folder.iterdir()), before)

    def test_a_folder_of_something_else_or_a_changed_text_is_refused(self):
        self.run_it()
        with open(self.folder / "words.txt", "a") as file:
            file.write("more")
        with self.assertRaisesRegex(fetch_text.Failure, "words.txt is not what manifest.json says.*delete it and run again"):
            self.run_it()
        self.folder = self.home / "debs"
        with self.assertRaisesRegex(fetch_text.Failure, "is no corpus of fetch-text"):
            self.run_it()


class Markup(unittest.TestCase):
    def test_pods_become_text(self):
        self.assertEqual(fetch_text.pod("=head1 A C<< $x->y >>\nX<index>\n\n=over 4\n\n=item B<-f I<file>>\n\nsee L<text|target>, L<perlop>, E<lt>E<0x41>\n\n"
                                        "    if ($a B<$b>) {}\n\n=begin html\n\n<b>\n\n=end html\n\n=back\n"),
                         "A $x->y\n\n\n-f file\n\nsee text, perlop, <A\n\n    if ($a B<$b>) {}")

    def test_manual_pages_become_text(self):
        self.assertEqual(fetch_text.manual('.\\" comment\n.TH ls 1 2023 "x"\n.SH NAME\nls \\- list\n.SH SYNOPSIS\n.nf\n.BI "int f(int " a ", int " b );\n.fi\n.PP\n'
                                           'one \\fBtwo\\fP\n.IR three ,\nfour\n.de XX\nhidden\n..\n.TP\n.B \\-a\nall\\(aqs\n'),
                         "\nls(1)\n\nNAME\n\nls - list\n\nSYNOPSIS\n\nint f(int a, int b);\n\none two three, four\n\n-a all's")


if __name__ == "__main__":
    unittest.main()
