// In the order of the tabs.
import { compare } from "./compare/index";
import { edits } from "./edits";
import { head } from "./head";
import { overview } from "./overview";
import { policies } from "./policies";
import { steps } from "./steps";
import { text } from "./text";
import { trainingView } from "./training";
import type { View } from "./view";
import { why } from "./why";

export const VIEWS: View[] = [overview, head, text, why, edits, policies, steps, trainingView, compare];
