import { head } from "./head";
import { overview } from "./overview";
import { text } from "./text";
import type { View } from "./view";

export const VIEWS: View[] = [overview, head, text];
