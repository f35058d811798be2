import "./styles.css";
import { fault, start } from "./app";
import { reportOf } from "./data/documents";
import { fromBase64, inflate, PayloadError, safetensors } from "./data/payload";
import { h } from "./dom";
import { useFonts } from "./fonts";
import { systemTheme, useTheme } from "./theme";

const root = document.getElementById("app")!;
useFonts();
useTheme(systemTheme());
try {
  const data = document.getElementById("sinkscope-data")!;
  const text = data.textContent!.trim();
  data.remove(); // megabytes that are not needed any more
  if (text === "") throw new PayloadError("This page holds no data: it is the frame that `sinkscope … --report FILE.html` fills.");
  start(reportOf(safetensors(await inflate(fromBase64(text)))), root);
} catch (error) {
  if (!(error instanceof PayloadError)) console.error(error);
  root.replaceChildren(h("main", {}, fault(error instanceof PayloadError ? error.message : `A fault of this page: ${String(error)}`)));
}
